"""Every way in which a signature can be wrong, each with S3's code: clients decide by it what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from botocore import auth

from gateway.s3.authentication import read_claim, verify_claim
from gateway.s3.errors import S3Error
from gateway.s3.identity import Verified
from gateway.s3.request import RawRequest, read_request
from tests.unit.s3.oracle import ACCESS_KEY, REGION, RULES, SECRET_KEY, credentials, now, signed, url_of

Change = Callable[[RawRequest], RawRequest]
SIGNED_AT = now()  # when the tests are collected, which may be long before they run: nothing is signed later
HEADER = signed("PUT", headers={"x-amz-meta-a": "1"}, data=b"photo")
MISMATCHED = signed(url=url_of("é.jpg"), headers={"x-amz-meta-a": "1"})
PRESIGNED = signed(signer=auth.S3SigV4QueryAuth(credentials(), "s3", REGION, expires=600))
PRESIGNED_V2 = signed(signer=auth.HmacV1QueryAuth(credentials(), expires=600))


def refused(request: RawRequest, *, secret_key: str | None = SECRET_KEY, minutes: float = 0) -> S3Error:
    with pytest.raises(S3Error) as caught:
        authenticate(request, secret_key=secret_key, minutes=minutes)
    return caught.value


def authenticate(request: RawRequest, *, secret_key: str | None = SECRET_KEY, minutes: float = 0) -> Verified:
    claim = read_claim(request)
    assert claim is not None
    return verify_claim(request, claim, secret_key=secret_key, rules=RULES, now=SIGNED_AT + timedelta(minutes=minutes))


def without(name: bytes) -> Change:
    return lambda r: replace(r, headers=tuple(h for h in r.headers if h[0].lower() != name))


def with_header(name: bytes, value: bytes) -> Change:
    return lambda r: replace(r, headers=(*r.headers, (name, value)))


def header(name: bytes, value: bytes) -> Change:
    return lambda r: with_header(name, value)(without(name)(r))


def in_header(name: bytes, old: bytes, new: bytes) -> Change:
    def change(request: RawRequest) -> RawRequest:
        changed = tuple((n, v.replace(old, new) if n.lower() == name else v) for n, v in request.headers)
        assert changed != request.headers
        return replace(request, headers=changed)

    return change


def in_query(old: bytes, new: bytes) -> Change:
    def change(request: RawRequest) -> RawRequest:
        assert old in request.query
        return replace(request, query=request.query.replace(old, new))

    return change


AUTHORIZATION = b"authorization"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (without(b"x-amz-meta-a"), "SignatureDoesNotMatch"),
        (header(b"x-amz-meta-a", b"2"), "SignatureDoesNotMatch"),
        (with_header(b"x-amz-meta-a", b"2"), "SignatureDoesNotMatch"),
        (with_header(b"x-amz-acl", b"public-read"), "AccessDenied"),
        (with_header(b"X-Amz-Copy-Source", b"/secret/key"), "AccessDenied"),
        (in_header(AUTHORIZATION, b"host;", b""), "AccessDenied"),
        (without(b"x-amz-content-sha256"), "InvalidRequest"),
        (header(b"x-amz-content-sha256", b"ab" * 32), "SignatureDoesNotMatch"),
        (header(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"), "SignatureDoesNotMatch"),
        (header(b"x-amz-content-sha256", b"short"), "InvalidArgument"),
        (header(b"x-amz-content-sha256", b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), "NotImplemented"),
        (with_header(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"), "InvalidArgument"),
        (without(b"x-amz-date"), "AccessDenied"),
        (header(b"x-amz-date", b"yesterday"), "AccessDenied"),
        (with_header(b"x-amz-date", b"20240101T000000Z"), "InvalidArgument"),
        (with_header(b"Authorization", b"AWS4-HMAC-SHA256 x"), "InvalidArgument"),
        (in_header(AUTHORIZATION, b"/s3/", b"/sts/"), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"us-east-1", b"eu-west-1"), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"/20", b"/19"), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"aws4_request", b"aws5_request"), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"Signature=", b"Sig="), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"SignedHeaders=host;", b"SignedHeaders=host;host;"), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"SignedHeaders=host;", b"SignedHeaders=;host;"), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"Credential=", b"Credential=x,Credential="), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"HMAC-SHA256", b"HMAC-SHA1"), "AuthorizationHeaderMalformed"),
        (in_header(AUTHORIZATION, b"HMAC-SHA256", b"ECDSA-P256-SHA256"), "NotImplemented"),
        (in_header(AUTHORIZATION, b"Signature=", b"Signature=0"), "SignatureDoesNotMatch"),
        (in_header(AUTHORIZATION, b"Signature=", b"Signature=\xff"), "SignatureDoesNotMatch"),
        (header(AUTHORIZATION, b"AWS AKIAIOSFODNN7EXAMPLE:c2lnbmF0dXJl"), "InvalidRequest"),
        (header(AUTHORIZATION, b"Basic dXNlcg=="), "InvalidArgument"),
        (lambda r: replace(r, query=b"X-Amz-Signature=x"), "InvalidArgument"),
        (lambda r: replace(r, query=b"AWSAccessKeyId=x"), "InvalidArgument"),
    ],
)
def test_wrong_header_signatures(change: Change, code: str) -> None:
    """A signed request with one thing changed is refused with S3's code for it."""
    assert refused(change(HEADER)).code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *((in_query(name, b"X-Other"), "AuthorizationQueryParametersError") for name in (
            b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-Expires", b"X-Amz-SignedHeaders",
            b"X-Amz-Signature",
        )),
        *((in_query(b"Expires=600", b"Expires=" + value), "AuthorizationQueryParametersError") for value in (
            b"0", b"-1", b"604801", b"600.5", b"", b"9" * 5000, b"%D9%A1",
        )),
        (in_query(b"Expires=600", b"Expires=601"), "SignatureDoesNotMatch"),
        (in_query(b"X-Amz-Date=20", b"X-Amz-Date=x"), "AuthorizationQueryParametersError"),
        (in_query(b"X-Amz-Date=", b"X-Amz-Date=20240101T000000Z&X-Amz-Date="), "AuthorizationQueryParametersError"),
        (in_query(b"%2Fs3%2F", b"%2Fiam%2F"), "AuthorizationQueryParametersError"),
        (in_query(b"us-east-1", b"eu-west-1"), "AuthorizationQueryParametersError"),
        (in_query(b"AWS4-HMAC-SHA256", b"AWS4-ECDSA-P256-SHA256"), "NotImplemented"),
        (in_query(b"SignedHeaders=host", b"SignedHeaders=range"), "AccessDenied"),
        (with_header(b"x-amz-acl", b"public-read"), "AccessDenied"),
        (with_header(b"x-amz-content-sha256", b"ab" * 32), "AccessDenied"),
        (with_header(b"Authorization", b"AWS4-HMAC-SHA256 Credential=x"), "InvalidArgument"),
        (lambda r: replace(r, query=r.query + b"&Signature=x"), "InvalidArgument"),
        (lambda r: replace(r, query=r.query + b"&X-Amz-Content-Sha256=" + b"ab" * 32), "SignatureDoesNotMatch"),
    ],
)  # fmt: skip
def test_wrong_presigned_urls(change: Change, code: str) -> None:
    """A presigned URL with one thing changed or missing is refused with S3's code for it."""
    assert refused(change(PRESIGNED)).code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (in_query(b"Expires=", b"Expired="), "AccessDenied"),
        (in_query(b"&Signature=", b"&Sig="), "AccessDenied"),
        (in_query(b"Expires=", b"Expires=x"), "AccessDenied"),
        (in_query(b"Expires=", b"Expires=9"), "AccessDenied"),
        (in_query(b"Expires=", b"Expires=1&Expires="), "InvalidArgument"),
        (lambda r: replace(r, query=r.query + b"&x-amz-content-sha256=" + b"ab" * 32), "SignatureDoesNotMatch"),
        (with_header(b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), "InvalidRequest"),
        (with_header(b"x-amz-acl", b"public-read"), "SignatureDoesNotMatch"),
        (with_header(b"Content-Type", b"text/html"), "SignatureDoesNotMatch"),
        (lambda r: replace(r, query=r.query + b"&legal-hold"), "AccessDenied"),
        (lambda r: replace(r, query=r.query + b"&%61cl"), "SignatureDoesNotMatch"),
        (lambda r: replace(r, query=r.query + b"&upload%49d=1"), "SignatureDoesNotMatch"),
        (lambda r: replace(r, query=r.query + b"&%6cegal-hold"), "AccessDenied"),
        (lambda r: replace(r, query=r.query + b"&Response-Content-Type=text/html"), "AccessDenied"),
    ],
)
def test_wrong_v2_urls(change: Change, code: str) -> None:
    """A V2 URL with one thing changed, missing or too far ahead is refused."""
    assert refused(change(PRESIGNED_V2)).code == code


@pytest.mark.parametrize("request_", [HEADER, PRESIGNED, PRESIGNED_V2], ids=["header", "v4", "v2"])
def test_unknown_keys(request_: RawRequest) -> None:
    """A key that nobody has is named as such, whatever its signature."""
    error = refused(request_, secret_key=None)
    assert (error.code, error.details["AWSAccessKeyId"]) == ("InvalidAccessKeyId", ACCESS_KEY)


@pytest.mark.parametrize("minutes", [16, -16])
def test_skewed_clocks(minutes: int) -> None:
    """A quarter of an hour is the limit, in both directions."""
    assert refused(HEADER, minutes=minutes).code == "RequestTimeTooSkewed"


@pytest.mark.parametrize("minutes", [13, -13])
def test_tolerated_clocks(minutes: int) -> None:
    """Clocks may differ by nearly a quarter of an hour."""
    assert authenticate(HEADER, minutes=minutes).access_key == ACCESS_KEY


@pytest.mark.parametrize(
    ("request_", "minutes", "message"),
    [
        (PRESIGNED, 11, "Request has expired"),
        (PRESIGNED_V2, 11, "Request has expired"),
        (PRESIGNED, -16, "Request is not valid yet"),
    ],
)
def test_urls_out_of_their_time(request_: RawRequest, minutes: int, message: str) -> None:
    """A URL is good from its date, less the skew, until it expires."""
    error = refused(request_, minutes=minutes)
    assert (error.code, error.message) == ("AccessDenied", message)


def test_a_mismatch_shows_what_was_signed() -> None:
    """The answer holds our string to sign and canonical request, so that a client's author can compare."""
    error = refused(MISMATCHED, secret_key="other")
    assert error.details["CanonicalRequest"].startswith("GET\n/photos/%C3%A9.jpg\n\nhost:photos.example.org:8081\n")
    assert error.details["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert "other" not in str(error.details)


def test_the_right_region_is_named() -> None:
    """Clients sign again with the region that the answer names."""
    error = refused(in_header(AUTHORIZATION, b"us-east-1", b"eu-west-1")(HEADER))
    assert error.details == {"Region": REGION}


@pytest.mark.parametrize("name", [b"x_amz_acl", b"X-Amz_Acl", b"x-amz-copy_source", b"x-amz_meta-a", b"x_amz_meta_a"])
def test_headers_that_are_an_other_one_to_some_storages(name: bytes) -> None:
    """A _ in place of a - is refused in the names that mean something to S3, but for those of metadata."""
    with pytest.raises(S3Error, match="InvalidRequest"):
        read_request("PUT", b"/photos/a", [(b"Host", b"a"), (name, b"public-read")])
    assert read_request("PUT", b"/photos/a", [(b"x-amz-meta-a_b", b"1"), (b"x_request_id", b"1")]).fields


def test_two_hosts_are_refused() -> None:
    """A request with two Host headers means two things."""
    with pytest.raises(S3Error, match="InvalidArgument"):
        read_request("GET", b"/", [(b"Host", b"a"), (b"host", b"b")])
