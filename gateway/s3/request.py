"""A request as it came over the wire: the only thing that signatures are checked against.

Nothing is parsed into header maps or URL objects, because those decode, reorder and drop what was signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote_to_bytes

from gateway.s3.errors import S3Error

Header = tuple[bytes, bytes]


@dataclass(frozen=True, kw_only=True)
class QueryPair:
    """One `name=value` of a query, decoded. `has_equals` tells `?acl=` from `?acl`."""

    name: bytes
    value: bytes
    has_equals: bool


@dataclass(frozen=True, kw_only=True)
class RawRequest:
    """`path`: percent-encoded, as sent. `query`: without its `?`. `headers`: in order, names in any case.
    `host`: what the client believes it speaks to, with its port."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[Header, ...]
    host: str

    @cached_property
    def pairs(self) -> tuple[QueryPair, ...]:
        return tuple(split_query(self.query))

    @cached_property
    def fields(self) -> dict[bytes, list[bytes]]:
        """Every header's values, trimmed, in order, under its lower-case name."""
        fields: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            fields.setdefault(name.lower(), []).append(value.strip())
        return fields

    def values(self, name: bytes) -> list[bytes]:
        """Every value of that header, trimmed, in order. `name` is lower-case."""
        return self.fields.get(name, [])

    def header(self, name: bytes) -> bytes | None:
        """The header that may be there once. Raises S3Error InvalidArgument where it is repeated."""
        values = self.fields.get(name)
        return _only(values, name) if values else None

    def parameter(self, name: bytes) -> bytes | None:
        """The query parameter that may be there once, by its exact name. Raises S3Error InvalidArgument."""
        return _only([pair.value for pair in self.pairs if pair.name == name], name)

    def stated(self, name: bytes) -> bytes | None:
        """A header, or the query parameter that a presigner made of it (in any case). The header wins. Raises
        S3Error InvalidArgument where either is repeated."""
        sent = self.header(name)
        return _only([p.value for p in self.pairs if p.name.lower() == name], name) if sent is None else sent


def read_request(method: str, target: bytes, headers: Iterable[Header]) -> RawRequest:
    """The request of a request line's target, which may be in absolute form. Raises S3Error InvalidURI,
    InvalidArgument, InvalidRequest."""
    if not target.startswith(b"/"):
        scheme, found, rest = target.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            raise S3Error("InvalidURI")
        target = rest[len(rest.partition(b"/")[0].partition(b"?")[0]) :]
    path, _, query = target.partition(b"?")
    kept = tuple(headers)
    _check_names(kept)
    host = _only([value.strip() for name, value in kept if name.lower() == b"host"], b"host")
    return RawRequest(method=method, path=path or b"/", query=query, headers=kept, host=(host or b"").decode("latin-1"))


def _check_names(headers: Iterable[Header]) -> None:
    """Ceph RGW takes `x_amz_acl` for `x-amz-acl`: it would obey what was neither signed nor looked at here."""
    for lower in (name.lower() for name, _ in headers if b"_" in name):
        if not lower.startswith(b"x-amz-meta-") and lower.replace(b"_", b"-").startswith(b"x-amz-"):
            raise S3Error("InvalidRequest", "Names of x-amz- headers are written with hyphens.")


def split_query(query: bytes) -> Iterator[QueryPair]:
    """The pairs of a raw query in their order; empty ones are left out."""
    for part in query.split(b"&"):
        if part:
            name, equals, value = part.partition(b"=")
            yield QueryPair(name=_decode(name), value=_decode(value), has_equals=bool(equals))


def _decode(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _only(values: list[bytes], name: bytes) -> bytes | None:
    if len(values) > 1:
        raise S3Error("InvalidArgument", f"{name.decode('latin-1')} may be given only once.")
    return values[0] if values else None
