"""POST forms: botocore's signatures verify; re-signed, the storage sees the same conditions under its own key."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import S3Error
from gateway.s3.policy import Condition, Field, Policy, parse_policy, read_claim, resolve_key, rewrite_policy, verify
from gateway.s3.scope import Signer
from tests.unit.s3.oracle import ACCESS_KEY, ANY_TEXT, REGION, RULES, SECRET_KEY, credentials, now, some

BACKEND = Signer(access_key="backend/key", secret_key="backend secret", region="eu-north-1")
SIGNERS = {"v4": auth.S3SigV4PostAuth(credentials(), "s3", REGION), "v2": auth.HmacV1PostAuth(credentials())}
CONDITIONS = [
    {"bucket": "photos"},
    ["starts-with", "$key", "user/"],
    ["eq", "$Content-Type", "image/jpeg"],
    ["content-length-range", 1, 1048576],
    {"x-amz-meta-a": "é"},
]


def form(
    version: str, *, conditions: Sequence[Any] = (), expires: datetime | None = None, extra: Sequence[Field] = ()
) -> list[Field]:
    """A form's fields as boto3's generate_presigned_post makes them."""
    request = AWSRequest(method="POST", url="http://h/photos")
    at = (expires or now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    request.context["s3-presign-post-policy"] = {"expiration": at, "conditions": list(conditions)}
    request.context["s3-presign-post-fields"] = {"key": "user/${filename}"}
    SIGNERS[version].add_auth(request)
    return [*request.context["s3-presign-post-fields"].items(), *extra]


def check(fields: Sequence[Field], *, secret_key: str | None = SECRET_KEY, at: datetime | None = None) -> Policy:
    claim = read_claim(fields)
    assert claim is not None
    assert claim.access_key in (ACCESS_KEY, "other")
    return verify(claim, fields, secret_key=secret_key, rules=RULES, now=at or now())


def refusal(fields: Sequence[Field], *, secret_key: str | None = SECRET_KEY, at: datetime | None = None) -> str:
    with pytest.raises(S3Error) as caught:
        check(fields, secret_key=secret_key, at=at)
    return caught.value.code


def changed(fields: Sequence[Field], name: str, value: str) -> list[Field]:
    assert any(field == name for field, _ in fields)
    return [(field, value if field == name else old) for field, old in fields]


@some
@given(prefix=ANY_TEXT, version=st.sampled_from(["v4", "v2"]))
def test_forms_of_botocore(prefix: str, version: str) -> None:
    """Any policy verifies as signed; with another policy, signature or secret it does not."""
    fields = form(version, conditions=[["starts-with", "$key", prefix]])
    policy = check(fields)
    assert policy.conditions[0] == Condition(operator="starts-with", field="key", value=prefix)
    wider = base64.b64encode(b'{"expiration": "2099-01-01T00:00:00Z", "conditions": []}').decode()
    signature = "x-amz-signature" if version == "v4" else "signature"
    for bad in (changed(fields, "policy", wider), changed(fields, signature, "0" * 64)):
        assert refusal(bad) == "SignatureDoesNotMatch"
    assert refusal(fields, secret_key="other") == "SignatureDoesNotMatch"
    assert refusal(fields, secret_key=None) == "InvalidAccessKeyId"


@pytest.mark.parametrize("version", ["v4", "v2"])
def test_rewritten_forms(version: str) -> None:
    """After rewriting, the backend's key verifies; conditions, other fields and expiration are the client's."""
    fields = form(version, conditions=CONDITIONS, extra=[("x-amz-meta-a", "é"), ("Content-Type", "image/jpeg")])
    policy = check(fields)
    rewritten = rewrite_policy(fields, policy, BACKEND, now=now())
    claim = read_claim(rewritten)
    assert claim is not None
    assert (claim.access_key, claim.scope and claim.scope.region) == ("backend/key", "eu-north-1")
    again = verify(
        claim,
        rewritten,
        secret_key=BACKEND.secret_key,
        rules=type(RULES)(region="eu-north-1"),
        now=now(),
    )
    assert again.expires_at == policy.expires_at
    assert again.document["conditions"][: len(CONDITIONS)] == CONDITIONS
    ours = {name: value for name, value in rewritten if name.startswith("x-amz-") and name != "x-amz-signature"}
    stated = {name: value for item in again.document["conditions"][len(CONDITIONS) :] for name, value in item.items()}
    assert stated == {name: ours[name] for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-date")}
    kept = [("key", "user/${filename}"), ("x-amz-meta-a", "é"), ("Content-Type", "image/jpeg")]
    assert [field for field in rewritten if field in kept] == kept
    assert ACCESS_KEY not in str(rewritten) + json.dumps(again.document)


def test_policies_expire() -> None:
    """A policy is good until its expiration, in the client's signature and in ours."""
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    fields = form("v4", conditions=CONDITIONS[1:2], expires=expires)
    assert check(fields, at=expires).expires_at == expires
    assert refusal(fields, at=expires + timedelta(seconds=1)) == "AccessDenied"


def test_conditions_about_the_signer_are_evaluated_here() -> None:
    """A condition that rewriting replaces must hold first: the storage will not see it."""
    fields = form("v2", conditions=[CONDITIONS[1], ["starts-with", "$x-amz-security-token", "token"]])
    assert refusal(fields) == "AccessDenied"
    assert check([*fields, ("x-amz-security-token", "token 7")]).conditions


@pytest.mark.parametrize("field", ["acl", "Success_Action_Redirect", "x-amz-meta-b", "tagging", "Cache-Control"])
def test_a_field_that_no_condition_names_is_refused(field: str) -> None:
    """The policy says all that a form may hold, but for x-ignore- fields: not every storage looks at each of them."""
    fields = form("v4", conditions=CONDITIONS[1:2], extra=[("x-ignore-me", "1")])
    assert check(fields).conditions
    assert refusal([*fields, (field, "public-read")]) == "AccessDenied"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("x-amz-algorithm", "AWS4-HMAC-SHA1", "NotImplemented"),
        ("x-amz-credential", "other", "InvalidArgument"),
        ("x-amz-credential", f"{ACCESS_KEY}/20240101/us-east-1/s3/aws4_request", "InvalidArgument"),
        ("x-amz-date", "today", "InvalidArgument"),
        ("x-amz-date", "", "InvalidArgument"),
        ("policy", "", "InvalidArgument"),
        ("policy", "A" * 30000, "InvalidPolicyDocument"),
    ],
)
def test_wrong_fields(name: str, value: str, code: str) -> None:
    """A field that is missing, malformed, too long or of another signer is refused with its code."""
    assert refusal(changed(form("v4"), name, value)) == code


@pytest.mark.parametrize(
    "extra", [("Policy", "x"), ("signature", "x"), ("X-Amz-Signature", "x")], ids=lambda field: field[0]
)
def test_ambiguous_forms(extra: Field) -> None:
    """A field given twice, in any case, or both kinds of signature are refused."""
    assert refusal([*form("v4"), extra]) == "InvalidArgument"


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"expiration": "2030-01-01T00:00:00Z"}',
        '{"conditions": []}',
        '{"expiration": "soon", "conditions": []}',
        '{"expiration": 7, "conditions": []}',
        '{"expiration": "2030-01-01", "conditions": []}',
        '{"expiration": "2030-01-01T00:00:00", "conditions": []}',
        '{"expiration": "2030-01-01 00:00:00Z", "conditions": []}',
        '{"expiration": "2030-01-01T00:00:00+00:00", "conditions": []}',
        '{"expiration": "2030-01-01T00:00:00Z", "expiration": "2099-01-01T00:00:00Z", "conditions": []}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [{"a": "1", "b": "2"}]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [{}]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [{"a": 1}]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [["eq", "a", "1"]]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [["like", "$a", "1"]]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [["eq", "$a"]]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [[1, 2, 3]]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": [["content-length-range", 0, 1e999]]}',
        '{"expiration": "2030-01-01T00:00:00Z", "conditions": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_malformed_policies(document: str) -> None:
    """Anything but S3's policy language, and whatever two parsers could read differently, is refused."""
    with pytest.raises(S3Error, match="InvalidPolicyDocument"):
        parse_policy(base64.b64encode(document.encode()).decode())


def test_policies_of_other_makers() -> None:
    """Milliseconds, numbers as text, and base64 in lines are in use too."""
    document = '{"expiration": "2030-01-01T00:00:00.000Z", "conditions": [["Content-Length-Range", "0", "9"]]}'
    policy = parse_policy(base64.encodebytes(document.encode() + b" " * 90).decode())
    assert policy.expires_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert policy.conditions[0].maximum == 9


def test_unsigned_forms_have_no_claim() -> None:
    """A form without a signature claims nothing."""
    assert read_claim([("key", "a"), ("acl", "private")]) is None


@pytest.mark.parametrize(
    ("key", "filename", "resolved"),
    [
        ("a/${filename}", "C:\\photos\\b.jpg", "a/b.jpg"),
        ("fixed", "b.jpg", "fixed"),
        ("${filename}", "x/y.jpg", "y.jpg"),
    ],
)
def test_keys_of_forms(key: str, filename: str, resolved: str) -> None:
    """${filename} stands for the last part of the file's name."""
    assert resolve_key([("Key", key)], filename) == resolved
