"""One request at the door, and what has been found out about it."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from gateway.door.access import Rights
from gateway.door.backend import EMPTY_SHA256, UNSIGNED_PAYLOAD, Body, Outgoing
from gateway.door.keyring import Principal
from gateway.reach import Reach
from gateway.s3 import canonical
from gateway.s3.checksums import drop_empty
from gateway.s3.chunked import strip_framing
from gateway.s3.identity import PayloadMode, Verified
from gateway.s3.operations import Asked
from gateway.s3.request import Header, RawRequest
from gateway.s3.scope import Signer
from gateway.s3.signing import forwardable

_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
# What a stranger may do is not looked up: it is public, or for the storage to decide.
_STRANGER = Rights(scopes=frozenset(), reach=Reach(derived_bucket=""))


@dataclass(frozen=True, kw_only=True)
class Visit:
    """`principal` is None for a stranger, `verified` for a preflight; `signer` None: the storage is asked as by a
    stranger."""

    request: web.BaseRequest
    raw: RawRequest
    request_id: str
    asked: Asked
    verified: Verified | None
    principal: Principal | None
    signer: Signer | None
    is_own: bool  # the storage is asked with Safelight's credentials or none, not with the key's own

    @property
    def rights(self) -> Rights:
        return self.principal or _STRANGER

    @property
    def bucket(self) -> str:
        """As Safelight names it: to Ceph RGW, `:photos` is `photos` of no tenant."""
        bucket = self.asked.target.bucket
        assert bucket is not None
        return bucket.removeprefix(":") if self.is_own else bucket

    @property
    def key(self) -> str:
        assert self.asked.target.key is not None
        return self.asked.target.key

    def outgoing(
        self,
        *,
        body: Body = b"",
        length: int | None = None,
        payload: str | None = None,
        path: bytes | None = None,
        without: frozenset[bytes] = frozenset(),
        content_type: bytes | None = None,
        asks_leave: bool = False,
        more: tuple[Header, ...] = (),
    ) -> Outgoing:
        """This request for the storage, with that body. `without`: query parameters that are ours alone;
        `content_type`: in place of the client's; `more`: headers beside the client's."""
        pairs = drop_empty(canonical.strip_signature(self.raw))
        return Outgoing(
            method=self.raw.method,
            path=self.path if path is None else path,
            query=canonical.join_query(pair for pair in pairs if pair.name not in without),
            headers=self._headers(content_type) + more,
            body=body,
            length=length,
            states_length=body != b"" or self._states_length,
            asks_leave=asks_leave,
            payload=payload or (EMPTY_SHA256 if body == b"" else UNSIGNED_PAYLOAD),
        )

    @property
    def path(self) -> bytes:
        """Always in path style: the storage need not know our domains."""
        path = canonical.recode_path(self.raw.path)
        host_bucket = self.asked.target.host_bucket
        return b"/" + host_bucket.encode("latin-1") + path if host_bucket else path

    @property
    def _states_length(self) -> bool:
        """Whether there is a body, be it empty. Storages differ in what they do without one."""
        return not self.raw.fields.keys().isdisjoint(_BODY_HEADERS)

    def _headers(self, content_type: bytes | None) -> tuple[Header, ...]:
        headers = forwardable(self.raw.headers)
        if content_type is not None:
            others = (header for header in headers if header[0].lower() != b"content-type")
            headers = (*others, (b"Content-Type", content_type))
        mode = self.verified.payload_mode if self.verified is not None else PayloadMode.UNSIGNED
        if mode.is_chunked:
            headers = strip_framing(headers)
        return headers
