"""The worked examples of the S3 documentation, of 2013-05-24, with its example key: every signature is as printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.s3.authentication import read_claim, verify_claim
from gateway.s3.checksums import read_checks
from gateway.s3.chunked import Decoder, read_decoded_length
from gateway.s3.identity import PayloadMode, Verified
from gateway.s3.request import RawRequest, read_request
from tests.unit.s3.oracle import ACCESS_KEY, RULES, SECRET_KEY

AT = datetime(2013, 5, 24, tzinfo=UTC)
HOST = (b"Host", b"examplebucket.s3.amazonaws.com")
DATE = (b"x-amz-date", b"20130524T000000Z")
EMPTY = (b"x-amz-content-sha256", b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def authorization(names: str, signature: str) -> tuple[bytes, bytes]:
    value = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature={signature}"
    )
    return b"Authorization", value.encode()


GET_OBJECT = read_request(
    "GET",
    b"/test.txt",
    [
        HOST,
        authorization(
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (b"Range", b"bytes=0-9"),
        EMPTY,
        DATE,
    ],
)
PUT_OBJECT = read_request(
    "PUT",
    b"/test$file.text",
    [
        HOST,
        (b"Date", b"Fri, 24 May 2013 00:00:00 GMT"),
        authorization(
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        DATE,
        (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
        (b"x-amz-content-sha256", b"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
    ],
)
GET_LIFECYCLE = read_request(
    "GET",
    b"/?lifecycle",
    [
        HOST,
        authorization(
            "host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        ),
        DATE,
        EMPTY,
    ],
)
LIST_OBJECTS = read_request(
    "GET",
    b"/?max-keys=2&prefix=J",
    [
        HOST,
        authorization(
            "host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        ),
        DATE,
        EMPTY,
    ],
)
PRESIGNED = read_request(
    "GET",
    b"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    b"&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
    b"&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    b"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    [HOST],
)


def chunked_request(mode: PayloadMode, signature: str, *, length: int, trailer: bytes | None = None) -> RawRequest:
    extra = [(b"x-amz-trailer", trailer)] if trailer else []
    names = (
        "content-encoding;"
        + ("" if trailer else "content-length;")
        + "host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
        + (";x-amz-trailer" if trailer else "")
    )
    return read_request(
        "PUT",
        b"/examplebucket/chunkObject.txt",
        [
            (b"Host", b"s3.amazonaws.com"),
            DATE,
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
            authorization(names, signature),
            (b"x-amz-content-sha256", mode.value.encode()),
            (b"Content-Encoding", b"aws-chunked"),
            (b"x-amz-decoded-content-length", b"66560"),
            *extra,
            (b"Content-Length", b"%d" % length),
        ],
    )


CHUNKED = chunked_request(
    PayloadMode.SIGNED_CHUNKS, "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", length=66824
)
CHUNKED_STREAM = b"".join(
    [
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
        b"a" * 65536 + b"\r\n",
        b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
        b"a" * 1024 + b"\r\n",
        b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
    ]
)
TRAILED = chunked_request(
    PayloadMode.SIGNED_CHUNKS_TRAILER,
    "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    length=66946,
    trailer=b"x-amz-checksum-crc32c",
)
TRAILED_STREAM = b"".join(
    [
        b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n",
        b"a" * 65536 + b"\r\n",
        b"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n",
        b"a" * 1024 + b"\r\n",
        b"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n",
        b"x-amz-checksum-crc32c:sOO8/Q==\r\n",
        b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n",
    ]
)


def verify(request: RawRequest, *, at: datetime = AT) -> Verified:
    claim = read_claim(request)
    assert claim is not None
    return verify_claim(request, claim, secret_key=SECRET_KEY, rules=RULES, now=at)


@pytest.mark.parametrize("request_", [GET_OBJECT, PUT_OBJECT, GET_LIFECYCLE, LIST_OBJECTS], ids=lambda r: str(r.path))
def test_header_signatures_are_as_documented(request_: RawRequest) -> None:
    """Examples 1 to 4: GET with a range, PUT with an odd name, a bare sub-resource, a listing."""
    assert verify(request_).payload_mode is PayloadMode.SHA256


def test_the_presigned_url_is_as_documented() -> None:
    """Example 5, within the last second of its day."""
    verified = verify(PRESIGNED, at=AT + timedelta(days=1))
    assert (verified.is_presigned, verified.expires_at) == (True, AT + timedelta(days=1))


@pytest.mark.parametrize(("request_", "stream"), [(CHUNKED, CHUNKED_STREAM), (TRAILED, TRAILED_STREAM)])
def test_chunked_bodies_are_as_documented(request_: RawRequest, stream: bytes) -> None:
    """Examples 6 and 7: the seed, each chunk's and the trailer's signature, and the CRC32C."""
    verified = verify(request_)
    assert request_.header(b"content-length") == b"%d" % len(stream)
    checks = read_checks(request_, payload_sha256=None, has_trailer=verified.payload_mode.has_trailer)
    decoder = Decoder(verified, decoded_length=read_decoded_length(request_), checks=checks)
    assert b"".join(decoder.feed(stream) + decoder.finish()) == b"a" * 66560
