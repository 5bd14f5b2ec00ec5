"""Promised checksums: the published check values, in any slicing, and what a wrong promise costs."""

from __future__ import annotations

import base64
import importlib.util
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3 import crc
from gateway.s3.checksums import ALGORITHMS, Check, drop_empty, read_checks, verify_all
from gateway.s3.errors import S3Error
from gateway.s3.request import RawRequest, read_request
from tests.unit.s3.oracle import some

# Of the nine bytes 123456789: the catalogues' check values, and the digests of RFC 1321 and FIPS 180 tools.
PUBLISHED = {
    "crc32": "cbf43926",
    "crc32c": "e3069283",
    "crc64nvme": "ae8b14860a799888",
    "sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    "md5": "25f9e794323b453885f5181f1b624d0b",
}


def check_of(algorithm: str, expected: bytes) -> Check:
    return Check(algorithm, b"x-amz-checksum-" + algorithm.encode(), expected)


def checks_of(
    *headers: tuple[bytes, bytes], payload_sha256: str | None = None, has_trailer: bool = False
) -> tuple[Check, ...]:
    request = read_request("PUT", b"/photos/a", headers)
    return read_checks(request, payload_sha256=payload_sha256, has_trailer=has_trailer)


def refusal(checks: tuple[Check, ...], body: bytes) -> str | None:
    for check in checks:
        check.update(body)
    try:
        verify_all(checks)
    except S3Error as error:
        return error.code
    return None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_published_values(algorithm: str) -> None:
    """Every algorithm gives its published value, also when the bytes come one by one."""
    check = check_of(algorithm, bytes.fromhex(PUBLISHED[algorithm]))
    for byte in b"123456789":
        check.update(bytes([byte]))
    check.verify()
    with pytest.raises(S3Error, match="BadDigest"):
        check_of(algorithm, bytes.fromhex(PUBLISHED[algorithm])).verify()


@some
@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_tables_continue_where_they_stopped(data: bytes, cut: int) -> None:
    """The table form gives the same for a whole and for its halves, odd lengths included."""
    for function in (crc.crc32c_from_table, crc.crc64nvme_from_table):
        assert function(data[cut:], function(data[:cut])) == function(data)


@pytest.mark.skipif(importlib.util.find_spec("awscrt") is None, reason="the AWS common runtime is not installed")
@some
@given(data=st.binary(max_size=300), previous=st.binary(max_size=9))
def test_tables_agree_with_the_common_runtime(data: bytes, previous: bytes) -> None:
    """Table and native code are interchangeable, at any point of a body."""
    for table, native in ((crc.crc32c_from_table, crc.crc32c), (crc.crc64nvme_from_table, crc.crc64nvme)):
        assert table(data, table(previous)) == native(data, native(previous, 0))


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "md5"])
def test_promises_in_headers(algorithm: str) -> None:
    """A checksum header is found by its name, and holds for the right body only."""
    header = b"x-amz-checksum-" + algorithm.encode(), base64.b64encode(bytes.fromhex(PUBLISHED[algorithm]))
    assert refusal(checks_of(header), b"123456789") is None
    assert refusal(checks_of(header), b"123456780") == "BadDigest"


def test_content_md5_and_payload_hash() -> None:
    """Content-MD5 and the signed hash of the payload are checked side by side, each with its own code."""
    md5 = b"content-md5", base64.b64encode(bytes.fromhex(PUBLISHED["md5"]))
    assert refusal(checks_of(md5, payload_sha256=PUBLISHED["sha256"]), b"123456789") is None
    assert refusal(checks_of(payload_sha256=PUBLISHED["sha256"]), b"x") == "XAmzContentSHA256Mismatch"
    assert refusal(checks_of(md5), b"x") == "BadDigest"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b"content-md5", b"AAAA")], "InvalidDigest"),
        ([(b"content-md5", b"not base64!")], "InvalidDigest"),
        ([(b"x-amz-checksum-crc32", b"AAAAAAAA")], "BadDigest"),
        ([(b"x-amz-checksum-crc32", b"AAAAAA=="), (b"x-amz-checksum-sha1", b"A" * 27 + b"=")], "InvalidRequest"),
        ([(b"x-amz-checksum-crc32", b"AAAAAA=="), (b"x-amz-sdk-checksum-algorithm", b"SHA256")], "InvalidRequest"),
        ([(b"x-amz-checksum-crc32", b"AAAAAA=="), (b"x-amz-checksum-crc32", b"AAAAAA==")], "InvalidArgument"),
        ([], "MalformedTrailerError"),
        ([(b"content-md5", b"1B2M2Y8AsgTpgAmY7PhCfg==")], "MalformedTrailerError"),
        ([(b"x-amz-trailer", b"x-amz-meta-a")], "InvalidRequest"),
        ([(b"x-amz-trailer", b"x-amz-checksum-md5")], "InvalidRequest"),
        ([(b"x-amz-trailer", b"x-amz-checksum-xxhash64")], "InvalidRequest"),
        ([(b"x-amz-trailer", b"x-amz-checksum-crc32,x-amz-checksum-sha1")], "InvalidRequest"),
    ],
)
def test_promises_that_cannot_be_kept(headers: list[tuple[bytes, bytes]], code: str) -> None:
    """Values of the wrong form, contradictions and trailers that nobody could verify are refused at once."""
    with pytest.raises(S3Error, match=code):
        checks_of(*headers, has_trailer=True)


def test_promises_of_the_finished_object() -> None:
    """Where the checksum headers speak of the object that parts become, the body is held to the others alone."""
    headers = [
        (b"content-md5", base64.b64encode(bytes.fromhex(PUBLISHED["md5"]))),
        (b"x-amz-checksum-sha256", base64.b64encode(b"of all parts' checksums, 32 bytes") + b"-3"),
        (b"x-amz-sdk-checksum-algorithm", b"SHA256"),
        (b"x-amz-trailer", b"x-amz-checksum-crc32"),
    ]
    request = read_request("POST", b"/photos/a?uploadId=1&x-amz-checksum-crc64nvme=AAAAAAAAAAE%3D", headers)
    checks = read_checks(request, payload_sha256=PUBLISHED["sha256"], has_trailer=False, of_body=False)
    assert [check.header for check in checks] == [b"content-md5", b"x-amz-content-sha256"]
    assert refusal(checks, b"123456789") is None
    assert refusal(checks, b"other") == "BadDigest"


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "md5"])
def test_promises_in_the_query(algorithm: str) -> None:
    """One that a presigner hoisted holds like a header, in any case; that of an empty body counts as none, and goes."""

    def asked(data: bytes) -> RawRequest:
        digest = ALGORITHMS[algorithm][0]()
        digest.update(data)
        value = quote(base64.b64encode(digest.digest()))
        query = f"X-Amz-Checksum-{algorithm.title()}={value}&x-amz-sdk-checksum-algorithm={algorithm.upper()}&x-id=Put"
        return read_request("PUT", b"/photos/a?" + query.encode(), ())

    pinned = asked(b"photo")
    assert refusal(read_checks(pinned, payload_sha256=None, has_trailer=False), b"photo") is None
    assert refusal(read_checks(pinned, payload_sha256=None, has_trailer=False), b"other") == "BadDigest"
    assert drop_empty(pinned.pairs) == pinned.pairs
    empty = asked(b"")
    assert read_checks(empty, payload_sha256=None, has_trailer=False) == ()
    assert [pair.name for pair in drop_empty(empty.pairs)] == [b"x-id"]


def test_the_sdk_header_may_name_the_algorithm() -> None:
    """The algorithm's name in capitals, as SDKs send it, fits its header or its trailer."""
    named = (b"x-amz-sdk-checksum-algorithm", b"CRC64NVME")
    (check,) = checks_of(named, (b"x-amz-trailer", b"x-amz-checksum-crc64nvme"), has_trailer=True)
    assert (check.algorithm, check.is_in_trailer) == ("crc64nvme", True)
