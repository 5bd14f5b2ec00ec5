"""The S3 door by the bytes of its connections: what stays open and what is closed, answers without bodies, what is not
HTTP, preflights, and headers that a request asks for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from storage.blobs import Blobs
from storage.database import Database
from tests import photos
from tests.integration.door_site import Site, open_site
from tests.integration.stage import until
from tests.integration.wrong_requests.signing import Signature, sha256, sign_header
from tests.integration.wrong_requests.wire import Draft
from tests.servers import S3Backend

PHOTO = photos.make_jpeg(64, 48, noise=20)
SECONDS = 20


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix) as opened:
        assert (await opened.client.put(f"/{opened.bucket}/a.jpg", PHOTO)).status == 200
        yield opened


class Talk:
    """One connection, on which requests are sent and answers are read by their own lengths."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, data: bytes, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, body."""
        self._writer.write(data)
        async with asyncio.timeout(SECONDS):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            size = int(headers.get("content-length", "0")) if has_body else 0
            return int(first.split()[1]), headers, await self._reader.readexactly(size)

    async def is_closed(self) -> bool:
        """Waits for its end, within the time that the door lingers on an unread body; nothing more may come."""
        try:
            async with asyncio.timeout(5):
                return await self._reader.read() == b""
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True


@asynccontextmanager
async def connect(site: Site) -> AsyncIterator[Talk]:
    host, _, port = site.client.url.partition("://")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield Talk(reader, writer)
    writer.close()


@pytest.fixture
async def talk(site: Site) -> AsyncIterator[Talk]:
    async with connect(site) as opened:
        yield opened


def signed(site: Site, draft: Draft, *, payload: str = "", secret: str = "") -> bytes:
    """As a client sends it that keeps its connections."""
    key = site.client.key
    by = Signature(access_key=key.access_key, secret_key=secret or key.secret_key)
    sign_header(draft, site.client.url.partition("://")[2], payload or sha256(draft.body), by)
    return draft.render().replace(b"Connection: close\r\n", b"", 1)


def head(site: Site, key: str = "a.jpg", *, secret: str = "") -> bytes:
    return signed(site, Draft(method="HEAD", path=f"/{site.bucket}/{key}"), secret=secret)


def put(site: Site, body: bytes, *, payload: str = "", secret: str = "") -> bytes:
    return signed(site, Draft(method="PUT", path=f"/{site.bucket}/b.jpg", body=body), payload=payload, secret=secret)


async def test_head_errors_have_no_body(site: Site, talk: Talk) -> None:
    """Neither the storage's nor the door's own: what follows on the connection is the next answer."""
    for data, status in ((head(site, "no.jpg"), 404), (head(site, secret="x" * 40), 403), (head(site), 200)):
        found, headers, _ = await talk.ask(data, has_body=False)
        assert (found, "x-amz-request-id" in headers) == (status, True)
    status, headers, body = await talk.ask(signed(site, Draft(method="GET", path=f"/{site.bucket}/no.jpg")))
    assert (status, headers["content-type"], b"<Code>NoSuchKey</Code>" in body) == (404, "application/xml", True)


async def test_errors_name_the_request_as_their_head_does(site: Site, talk: Talk) -> None:
    """RequestId in the XML is x-amz-request-id: the storage's where it answered, ours where we did. Ours is in
    x-safelight-request-id both times."""
    absent = Draft(method="GET", path=f"/{site.bucket}/no.jpg")
    for data, is_ours in ((signed(site, absent), False), (signed(site, absent, secret="x" * 40), True)):
        _, headers, body = await talk.ask(data)
        named = body.partition(b"<RequestId>")[2].partition(b"</RequestId>")[0].decode()
        assert headers["x-amz-request-id"] == named != ""
        assert (headers["x-safelight-request-id"] == named) is is_ours


async def test_a_refused_body_that_was_read_keeps_the_connection(site: Site, talk: Talk) -> None:
    """A false hash, found at the body's end, costs one request: the next one on the connection is answered."""
    for size in (len(PHOTO), 3_000_000):
        status, headers, body = await talk.ask(put(site, photos.padded(PHOTO, size), payload=sha256(b"other")))
        assert (status, b"XAmzContentSHA256Mismatch" in body) == (400, True)
        assert headers.get("connection") != "close"
        assert (await talk.ask(head(site), has_body=False))[0] == 200
    assert not await site.has("b.jpg")


async def test_an_early_refusal_reaches_who_is_still_sending(site: Site, talk: Talk) -> None:
    """The answer arrives whole although 20 MB were on their way; the connection is closed, so that no rest of the body
    is taken for a request."""
    status, headers, body = await talk.ask(put(site, bytes(20_000_000), secret="x" * 40))
    assert (status, headers["connection"], body[-8:]) == (403, "close", b"</Error>")
    assert await talk.is_closed()


async def test_who_asks_first_is_refused_without_the_body(site: Site, talk: Talk) -> None:
    """Expect: 100-continue with a wrong signature: 403 at once, and the connection ends."""
    headers = [("Expect", "100-continue"), ("Content-Length", "1000")]
    draft = Draft(method="PUT", path=f"/{site.bucket}/b.jpg", headers=headers)
    status, answered, _ = await talk.ask(signed(site, draft, secret="x" * 40))
    assert (status, answered["connection"]) == (403, "close")
    assert await talk.is_closed()


async def test_answers_without_bodies_leave_the_connection_in_order(site: Site, talk: Talk) -> None:
    """304, 204 and 416, one after the other."""
    unchanged = Draft(method="GET", path=f"/{site.bucket}/a.jpg", headers=[("If-None-Match", "*")])
    assert (await talk.ask(signed(site, unchanged)))[0] == 304
    beyond = Draft(method="GET", path=f"/{site.bucket}/a.jpg", headers=[("Range", "bytes=999999-")])
    status, headers, body = await talk.ask(signed(site, beyond))
    assert (status, headers["content-range"], b"InvalidRange" in body) == (416, f"bytes */{len(PHOTO)}", True)
    assert (await talk.ask(signed(site, Draft(method="DELETE", path=f"/{site.bucket}/no.jpg"))))[0] == 204
    assert (await talk.ask(head(site), has_body=False))[0] == 200


NOT_HTTP = {
    "words": (b"let me in\r\n\r\n", "BadRequest"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "BadRequest"),
    "two_lengths": (
        b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "BadRequest",
    ),
    "length_and_chunks": (
        b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "BadRequest",
    ),
    "negative_length": (b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\n", "BadRequest"),
    "no_host": (b"GET / HTTP/1.1\r\n\r\n", "BadRequest"),
    "unknown_method": (b"STEAL /b/k HTTP/1.1\r\nHost: a\r\n\r\n", "BadRequest"),
    "long_header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", "RequestHeaderSectionTooLarge"),
    "long_address": (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "RequestHeaderSectionTooLarge"),
}


async def test_what_is_not_http_is_refused_in_xml(site: Site) -> None:
    """S3's error and the end of the connection; nothing of it is tried."""
    for name, (data, code) in NOT_HTTP.items():
        async with connect(site) as talk:
            status, headers, body = await talk.ask(data)
            assert (status, headers["content-type"]) == (400, "application/xml"), name
            assert f"<Code>{code}</Code>".encode() in body, name
            assert await talk.is_closed(), name


async def test_old_and_odd_clients_are_answered(site: Site, talk: Talk) -> None:
    """A request line in absolute form means its path; HTTP/1.0 gets no chunks, and the connection's end."""
    absolute = head(site).replace(b"HEAD /", b"HEAD http://elsewhere/", 1)
    assert (await talk.ask(absolute, has_body=False))[0] == 200
    listing = signed(site, Draft(method="GET", path=f"/{site.bucket}")).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    status, headers, _ = await talk.ask(listing)
    assert (status, "transfer-encoding" in headers) == (200, False)
    assert await talk.is_closed()


CORS = b"""<CORSConfiguration><CORSRule><AllowedOrigin>http://photos.example</AllowedOrigin>
<AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><AllowedHeader>*</AllowedHeader>
<ExposeHeader>ETag</ExposeHeader></CORSRule></CORSConfiguration>"""


def preflight(site: Site, origin: str) -> bytes:
    lines = [f"OPTIONS /{site.bucket}/a.jpg HTTP/1.1", "Host: door", f"Origin: {origin}"]
    lines += ["Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type,x-amz-meta-a"]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_browsers_are_told_what_the_bucket_allows(site: Site, talk: Talk) -> None:
    """A preflight needs no signature and gets the bucket's CORS rules; the request itself carries them, too."""
    configure = Draft(method="PUT", path=f"/{site.bucket}", query=[("cors", None)], body=CORS)
    assert (await talk.ask(signed(site, configure)))[0] == 200
    status, headers, _ = await talk.ask(preflight(site, "http://photos.example"))
    assert (status, headers["access-control-allow-origin"]) == (200, "http://photos.example")
    assert "PUT" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-headers"]
    status, headers, _ = await talk.ask(preflight(site, "http://elsewhere.example"))
    assert (status, "access-control-allow-origin" in headers) == (403, False)
    read = Draft(method="GET", path=f"/{site.bucket}/a.jpg", headers=[("Origin", "http://photos.example")])
    status, headers, body = await talk.ask(signed(site, read))
    assert (status, headers["access-control-allow-origin"], body) == (200, "http://photos.example", PHOTO)


OVERRIDES = {
    "response-content-type": "text%2Fplain",
    "response-content-disposition": "attachment%3B%20filename%3Da.jpg",
    "response-content-language": "de",
    "response-content-encoding": "identity",
    "response-cache-control": "no-store",
    "response-expires": "Thu%2C%2001%20Dec%202033%2016%3A00%3A00%20GMT",
}


async def test_a_signed_request_chooses_headers_of_its_answer(site: Site, talk: Talk) -> None:
    """All six, and none of them can break out of its line."""
    draft = Draft(method="GET", path=f"/{site.bucket}/a.jpg", query=list(OVERRIDES.items()))
    status, headers, body = await talk.ask(signed(site, draft))
    assert (status, body) == (200, PHOTO)
    assert headers["content-type"] == "text/plain"
    assert headers["content-disposition"] == "attachment; filename=a.jpg"
    assert (headers["content-language"], headers["content-encoding"]) == ("de", "identity")
    assert (headers["cache-control"], headers["expires"]) == ("no-store", "Thu, 01 Dec 2033 16:00:00 GMT")
    query: list[tuple[str, str | None]] = [("response-content-disposition", "a%0D%0AX-Evil%3A%201")]
    status, headers, _ = await talk.ask(signed(site, Draft(method="GET", path=f"/{site.bucket}/a.jpg", query=query)))
    assert "x-evil" not in headers


async def test_a_stranger_chooses_nothing(site: Site, talk: Talk) -> None:
    """What is public is shown as what it is: as a page of the door's own origin, a preview could run scripts."""
    key = f"{site.bucket}/public/a.jpg/thumb.webp"
    await site.blobs.put(site.derived, key, b"preview", content_type="image/webp")
    lines = f"GET /{site.derived}/{key}{{}} HTTP/1.1\r\nHost: door\r\n\r\n"
    status, headers, _ = await talk.ask(lines.format("").encode())
    assert (status, headers["content-type"]) == (200, "image/webp")
    for name, value in OVERRIDES.items():
        status, _, body = await talk.ask(lines.format(f"?{name.title()}={value}").encode())
        assert (status, b"<Code>InvalidRequest</Code>" in body) == (400, True), name


async def test_the_log_says_why_a_request_was_refused(site: Site, talk: Talk) -> None:
    """S3's code and the path stand in the one line of a refused request; its query, which may hold a signature, does
    not."""
    with capture_logs() as lines:
        query: list[tuple[str, str | None]] = [("versionId", "not-for-the-log")]
        draft = Draft(method="GET", path=f"/{site.bucket}/a.jpg", query=query)
        assert (await talk.ask(signed(site, draft, secret="x" * 40)))[0] == 403
        assert (await talk.ask(head(site), has_body=False))[0] == 200

        async def are_written() -> bool:  # a line follows its answer
            return sum(line["event"] == "request.done" for line in lines) == 2

        await until(are_written, seconds=5, what="both lines are written")
    refused, answered = (line for line in lines if line["event"] == "request.done")
    assert (refused["code"], refused["path"]) == ("SignatureDoesNotMatch", f"/{site.bucket}/a.jpg")
    assert "not-for-the-log" not in str(lines)
    assert "code" not in answered
