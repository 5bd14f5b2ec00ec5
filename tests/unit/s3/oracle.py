"""Requests as real S3 clients sign them: botocore signs, and aws-chunked bodies are framed by the letter of the
documentation.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import settings
from hypothesis import strategies as st

from gateway.s3.identity import PayloadMode, Verified
from gateway.s3.request import RawRequest, read_request
from gateway.s3.scope import Scope, signing_key
from gateway.s3.sigv4 import Rules

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"
RULES = Rules(region=REGION)
HOST = "photos.example.org:8081"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ASCII_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
SPACED_TEXT = st.lists(ASCII_TEXT, min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from([" ", "  ", "   "]).map(lambda gap: gap.join(words))
)
METADATA = st.dictionaries(st.from_regex(r"x-amz-meta-[a-z0-9]{1,8}", fullmatch=True), SPACED_TEXT, max_size=3)
some = settings(deadline=None)


def now() -> datetime:
    return datetime.now(UTC)


def credentials(access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Credentials:
    return Credentials(access_key, secret_key)


def url_of(key: str, query: Iterable[tuple[str, str | None]] = (), *, host: str = HOST, bucket: str = "photos") -> str:
    """A path-style URL, encoded as botocore does. A value None: a name without `=`."""
    parts = [quote(name, safe="-_.~") + ("" if v is None else "=" + quote(v, safe="-_.~")) for name, v in query]
    path = (f"/{bucket}" if bucket else "") + "/" + quote(key, safe="/~")
    return f"http://{host}{path}" + ("?" + "&".join(parts) if parts else "")


def on_the_wire(request: AWSRequest, extra: Iterable[tuple[bytes, bytes]] = ()) -> RawRequest:
    """What a server reads of a request that botocore signed."""
    parts = urlsplit(request.url)
    headers = [(name.encode(), str(value).encode()) for name, value in request.headers.items()]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.append((b"Host", parts.netloc.encode()))
    target = request.url.partition("://")[2].partition("/")[2]
    return read_request(request.method, b"/" + target.encode(), [*headers, *extra])


def signed(
    method: str = "GET",
    url: str | None = None,
    *,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    data: bytes = b"",
    signer: Any = None,
    auth_path: str | None = None,
) -> RawRequest:
    """A request signed by botocore, V4 in the header if nothing else is said."""
    request = AWSRequest(method=method, url=url or url_of("a.jpg"), data=data, auth_path=auth_path)
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        request.headers[name] = value
    (signer or auth.S3SigV4Auth(credentials(), "s3", REGION)).add_auth(request)
    return on_the_wire(request)


@dataclass(frozen=True, kw_only=True)
class Framed:
    """An aws-chunked body and what a verified request says about it."""

    verified: Verified
    stream: bytes
    payload: bytes
    secret_offsets: frozenset[int]  # of payload and signatures: there, no changed byte may pass


def frame(
    chunks: Sequence[bytes], mode: PayloadMode, *, trailer: Sequence[tuple[bytes, bytes]] = (), seed: str = "0" * 64
) -> Framed:
    """The chunks, ended by an empty one."""
    scope, amz_date = Scope(date="20240101", region=REGION), "20240101T000000Z"
    key = signing_key(SECRET_KEY, "20240101", REGION)
    previous, stream, offsets = seed, b"", set[int]()

    def sign(kind: str, digests: str) -> bytes:
        nonlocal previous
        text = f"AWS4-HMAC-SHA256-{kind}\n{amz_date}\n{scope}\n{previous}\n{digests}"
        previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return previous.encode()

    def append(secret: bytes) -> None:
        nonlocal stream
        offsets.update(range(len(stream), len(stream) + len(secret)))
        stream += secret

    for chunk in (*chunks, b""):
        stream += b"%x" % len(chunk)
        if mode.has_signed_chunks:
            stream += b";chunk-signature="
            empty = hashlib.sha256().hexdigest()
            append(sign("PAYLOAD", f"{empty}\n{hashlib.sha256(chunk).hexdigest()}"))
        stream += b"\r\n"
        if chunk:
            append(chunk)
            stream += b"\r\n"
    for name, value in trailer:
        stream += b"%s:%s\r\n" % (name, value)
    if mode is PayloadMode.SIGNED_CHUNKS_TRAILER:
        text = b"".join(b"%s:%s\n" % item for item in sorted(trailer))
        stream += b"x-amz-trailer-signature:"
        append(sign("TRAILER", hashlib.sha256(text).hexdigest()))
        stream += b"\r\n"
    verified = Verified(
        access_key=ACCESS_KEY,
        version="v4",
        is_presigned=False,
        payload_mode=mode,
        payload_sha256=None,
        seed_signature=seed,
        signing_key=key,
        scope=scope,
        amz_date=amz_date,
    )
    stream += b"\r\n"
    return Framed(verified=verified, stream=stream, payload=b"".join(chunks), secret_offsets=frozenset(offsets))
