"""Addresses and forms that are handed out: botocore would sign them the same, and our own verifier takes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3 import sigv4
from gateway.s3.claims import read_query
from gateway.s3.errors import S3Error
from gateway.s3.policy import Condition, Policy, verify
from gateway.s3.policy import read_claim as read_form_claim
from gateway.s3.presigning import presign_url, sign_form, split_endpoint
from gateway.s3.request import RawRequest, read_request
from gateway.s3.scope import Signer
from tests.unit.s3.oracle import ACCESS_KEY, ANY_TEXT, REGION, RULES, SECRET_KEY, credentials, now, some, url_of

SIGNER = Signer(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
KEYS = st.lists(ANY_TEXT.filter(lambda text: "/" not in text), min_size=1, max_size=3).map("/".join)
HEADERS = {"Content-Type": "image/jpeg", "If-None-Match": "*", "x-amz-meta-a": "b", "content-length": "7"}


def presign(key: str, *, endpoint: str = "https://s3.example.org", **query: str) -> str:
    return presign_url(
        "PUT",
        ("photos", key),
        endpoint=endpoint,
        headers=HEADERS,
        query=query,
        signer=SIGNER,
        now=now(),
        expires_seconds=600,
    )


def as_sent(url: str, headers: dict[str, str], *, method: str = "PUT") -> RawRequest:
    """What a server reads of a client that uses the address."""
    parts = urlsplit(url)
    lines = [(b"Host", parts.netloc.encode()), *((name.encode(), text.encode()) for name, text in headers.items())]
    return read_request(method, url.partition(parts.netloc)[2].encode(), lines)


def check(request: RawRequest) -> None:
    claim = read_query(request)
    sigv4.verify(request, claim, secret_key=SECRET_KEY, rules=RULES, now=now())


@some
@given(key=KEYS, upload_id=ANY_TEXT)
def test_an_address_is_signed_as_botocore_signs_it(key: str, upload_id: str) -> None:
    """Any key and any parameter: the same signature as botocore's, for the same moment, headers and expiry."""
    ours = presign(key, partNumber="7", uploadId=upload_id)
    stated = dict(parse_qsl(urlsplit(ours).query))
    request = AWSRequest(
        method="PUT", url=url_of(key, [("partNumber", "7"), ("uploadId", upload_id)], host="s3.example.org")
    )
    for name, text in HEADERS.items():
        request.headers[name] = text
    request.context["timestamp"] = stated["X-Amz-Date"]
    signer: Any = auth.S3SigV4QueryAuth(credentials(), "s3", REGION, expires=600)
    signer._modify_request_before_signing = lambda _request: None  # it would hoist the headers into the query
    request.url = ours.partition("&X-Amz-Signature=")[0].replace("https:", "http:")
    canonical = signer.canonical_request(request)
    assert signer.signature(signer.string_to_sign(request, canonical), request) == stated["X-Amz-Signature"]


@some
@given(key=KEYS)
def test_an_address_is_taken_with_its_headers_alone(key: str) -> None:
    """Our own verifier takes it as it is, and nothing that differs in a header, the key, the method or the expiry."""
    url = presign(key)
    check(as_sent(url, HEADERS))
    for name in HEADERS:
        with pytest.raises(S3Error):
            check(as_sent(url, {**HEADERS, name: "other"}))
    for changed, method in ((url, "DELETE"), (url.replace("?", "x?", 1), "PUT"), (url.replace("=600", "=900"), "PUT")):
        with pytest.raises(S3Error):
            check(as_sent(changed, HEADERS, method=method))


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("https://Storage.example.org:443", "storage.example.org"),
        ("http://127.0.0.1:8333", "127.0.0.1:8333"),
        ("http://s3.test:80", "s3.test"),
        ("https://s3.test:80", "s3.test:80"),
        ("http://[::1]:9000", "[::1]:9000"),
    ],
)
def test_the_signed_host_is_the_one_that_clients_send(endpoint: str, host: str) -> None:
    """Lower-case, and without a port that the scheme implies."""
    assert split_endpoint(endpoint)[1] == host
    check(as_sent(presign("a.jpg", endpoint=endpoint), HEADERS))


def form() -> tuple[dict[str, str], Policy]:
    """A form's fields, and its policy as our verifier reads it."""
    fields = sign_form(
        {"key": "a/é.jpg", "Content-Type": "image/jpeg"},
        [("content-length-range", 1, 99)],
        bucket="photos",
        signer=SIGNER,
        now=now(),
        expires_at=now() + timedelta(minutes=5),
    )
    claim = read_form_claim(fields.items())
    assert claim is not None
    return fields, verify(claim, fields.items(), secret_key=SECRET_KEY, rules=RULES, now=now())


def test_a_form_holds_to_every_field() -> None:
    """Bucket, each field and the length are conditions of the policy, and the policy ends when it should."""
    fields, policy = form()
    stated = {item.field: item for item in policy.conditions}
    assert set(stated) == {"bucket", "content-length-range", *(name.lower() for name in fields)} - {
        "policy",
        "x-amz-signature",
    }
    assert stated["key"] == Condition(operator="eq", field="key", value="a/é.jpg")
    assert (stated["content-length-range"].minimum, stated["content-length-range"].maximum) == (1, 99)
    assert abs(policy.expires_at - now() - timedelta(minutes=5)) < timedelta(seconds=5)
