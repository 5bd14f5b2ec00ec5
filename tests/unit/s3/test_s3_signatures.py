"""What botocore signs verifies, what is changed afterwards does not: over generated keys, queries and headers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from botocore import auth
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.authentication import read_claim, verify_claim
from gateway.s3.canonical import canonical_query, join_query, strip_signature
from gateway.s3.claims import Claim
from gateway.s3.errors import S3Error
from gateway.s3.identity import PayloadMode, Verified
from gateway.s3.request import RawRequest, read_request, split_query
from gateway.s3.scope import Signer, parse_date
from gateway.s3.signing import forwardable, sign_request
from gateway.s3.sigv4 import Rules
from tests.unit.s3.oracle import (
    ACCESS_KEY,
    ANY_TEXT,
    ASCII_TEXT,
    HOST,
    METADATA,
    REGION,
    RULES,
    SECRET_KEY,
    SPACED_TEXT,
    credentials,
    now,
    on_the_wire,
    signed,
    some,
    url_of,
)

QUERY = st.lists(st.tuples(ANY_TEXT, st.none() | st.text(st.characters(exclude_categories=["Cs"]))), max_size=4)
UNIQUE_QUERY = st.dictionaries(
    ANY_TEXT.filter(lambda name: not name.lower().startswith("x-amz-")), ANY_TEXT, max_size=3
)
SUBRESOURCES = st.dictionaries(
    st.sampled_from(["versionId", "response-content-type", "partNumber", "uploadId"]), ANY_TEXT, max_size=3
)


def verify(
    request: RawRequest, *, secret_key: str | None = SECRET_KEY, rules: Rules = RULES, host_bucket: str | None = None
) -> Verified:
    claim = read_claim(request)
    assert claim is not None
    signed_at = parse_date(claim.amz_date) if isinstance(claim, Claim) else now()  # URLs may live for one second
    assert signed_at is not None
    return verify_claim(request, claim, secret_key=secret_key, rules=rules, now=signed_at, host_bucket=host_bucket)


def refusal(request: RawRequest, *, secret_key: str | None = SECRET_KEY) -> str:
    with pytest.raises(S3Error) as caught:
        verify(request, secret_key=secret_key)
    return caught.value.code


def tampered(request: RawRequest) -> list[RawRequest]:
    """The same signature on other requests."""
    return [
        replace(request, method="DELETE"),
        replace(request, path=request.path + b"x"),
        replace(request, query=request.query + b"&acl"),
        replace(request, host="elsewhere.example.org"),
    ]


@some
@given(key=ANY_TEXT, query=QUERY, metadata=METADATA, access_key=ASCII_TEXT, secret_key=ANY_TEXT, data=st.binary())
def test_header_signatures_of_botocore(
    key: str,
    query: list[tuple[str, str | None]],
    metadata: dict[str, str],
    access_key: str,
    secret_key: str,
    data: bytes,
) -> None:
    """Any key, query (repeated, bare or empty) and metadata verify, and nothing else does under that signature."""
    access_key = access_key.replace(",", "/")
    signer = auth.S3SigV4Auth(credentials(access_key, secret_key), "s3", REGION)
    request = signed("PUT", url_of(key, query), headers=metadata, data=data, signer=signer)
    verified = verify(request, secret_key=secret_key)
    assert (verified.access_key, verified.payload_mode) == (access_key, PayloadMode.SHA256)
    assert {refusal(other, secret_key=secret_key) for other in tampered(request)} == {"SignatureDoesNotMatch"}
    assert refusal(request, secret_key=secret_key + "x") == "SignatureDoesNotMatch"


@some
@given(values=st.lists(SPACED_TEXT, min_size=2, max_size=3))
def test_repeated_headers(values: list[str]) -> None:
    """A repeated header is joined in its order, and the order is signed."""
    request = signed(headers=[("x-amz-meta-a", value) for value in values])
    assert verify(request).access_key == ACCESS_KEY
    headers = list(request.headers)
    headers.append(headers.pop(0))
    moved = replace(request, headers=tuple(headers))
    same_order = [" ".join(v.split()) for v in values] == [" ".join(v.split()) for v in [*values[1:], values[0]]]
    assert same_order or refusal(moved) == "SignatureDoesNotMatch"


@some
@given(key=ANY_TEXT, query=UNIQUE_QUERY, metadata=METADATA, expires=st.integers(1, 604_800))
def test_presigned_v4_urls_of_botocore(key: str, query: dict[str, str], metadata: dict[str, str], expires: int) -> None:
    """Any presigned URL verifies with the headers that it signs, and no other method, path or query does."""
    signer = auth.S3SigV4QueryAuth(credentials(), "s3", REGION, expires=expires)
    request = signed("PUT", url_of(key, list(query.items())), headers=metadata, signer=signer)
    verified = verify(request)
    assert (verified.is_presigned, verified.version) == (True, "v4")
    assert verified.expires_at is not None
    signed_at = parse_date(verified.amz_date)
    assert signed_at is not None
    assert verified.expires_at - signed_at == timedelta(seconds=expires)
    assert {refusal(other) for other in tampered(request)} == {"SignatureDoesNotMatch"}
    assert {p.name.decode(): p.value.decode() for p in strip_signature(request)} == query


@some
@given(key=ANY_TEXT, query=SUBRESOURCES, metadata=METADATA, content_type=st.none() | ASCII_TEXT)
def test_presigned_v2_urls_of_botocore(
    key: str, query: dict[str, str], metadata: dict[str, str], content_type: str | None
) -> None:
    """What boto3 makes by default verifies, with the headers that it moves into the query."""
    headers = metadata | ({"Content-Type": content_type} if content_type else {})
    request = signed(
        "PUT", url_of(key, list(query.items())), headers=headers, signer=auth.HmacV1QueryAuth(credentials())
    )
    bare = replace(request, headers=((b"Host", HOST.encode()),))
    assert verify(bare).version == "v2"
    assert refusal(replace(bare, method="GET")) == "SignatureDoesNotMatch"
    assert refusal(replace(bare, path=bare.path + b"x")) == "SignatureDoesNotMatch"
    assert refusal(replace(bare, query=bare.query + b"&acl")) == "SignatureDoesNotMatch"
    assert refusal(replace(bare, query=bare.query + b"&x-amz-acl=public-read")) == "SignatureDoesNotMatch"
    assert refusal(replace(bare, query=bare.query + b"&attributes")) == "AccessDenied"


def test_v2_speaks_of_the_bucket_that_the_host_names() -> None:
    """In virtual-host style V2 signs the bucket, so the same path of another bucket's host is refused."""
    url = url_of("a.jpg", host="photos.example.org", bucket="")
    request = signed("GET", url, signer=auth.HmacV1QueryAuth(credentials()), auth_path="/photos/a.jpg")
    assert verify(request, host_bucket="photos").version == "v2"
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(request, host_bucket="others")


@some
@given(key=ANY_TEXT, query=QUERY, metadata=METADATA)
def test_what_we_sign_is_what_botocore_signs(
    key: str, query: list[tuple[str, str | None]], metadata: dict[str, str]
) -> None:
    """Our signature equals botocore's for the same request and second; names, order and `=` of the query survive."""
    theirs = signed("PUT", url_of(key, query), headers=metadata, data=b"photo")
    claim = read_claim(theirs)
    at = parse_date((theirs.header(b"x-amz-date") or b"").decode())
    assert claim is not None
    assert at is not None
    signer = Signer(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
    bare = replace(theirs, headers=forwardable(theirs.headers), query=join_query(theirs.pairs))
    payload = (theirs.header(b"x-amz-content-sha256") or b"").decode()
    ours = replace(bare, headers=sign_request(bare, signer, payload=payload, now=at))
    assert ours.header(b"authorization") == theirs.header(b"authorization")
    assert (ours.path, ours.query) == (theirs.path, theirs.query)


def test_forwardable_drops_what_is_between_neighbours() -> None:
    """Hop-by-hop headers, those that Connection names, and the client's own signature stay behind."""
    names = [b"Connection", b"X-Hop", b"Authorization", b"Expect", b"X-Amz-Date", b"Accept-Encoding", b"Content-Type"]
    headers = [(name, b"x-hop, close") for name in [*names, b"x-amz-meta-a", b"Range"]]
    assert [name for name, _ in forwardable(headers)] == [b"Content-Type", b"x-amz-meta-a", b"Range"]


def test_forwardable_drops_what_means_something_else_to_a_storage() -> None:
    """MinIO's orders, which need no signature, and names that some servers read with a hyphen."""
    headers = [(b"X-Minio-Force-Delete", b"true"), (b"x_minio_force_delete", b"true"), (b"if_match", b"x")]
    assert forwardable([*headers, (b"x-amz-meta-a_b", b"1")]) == ((b"x-amz-meta-a_b", b"1"),)


@pytest.mark.parametrize("rewritten", [b"gzip", b"identity", None])
def test_accept_encoding_may_have_been_rewritten(rewritten: bytes | None) -> None:
    """A signed accept-encoding that a proxy set to another usual value verifies; an unusual one does not."""
    request = signed(headers={"accept-encoding": {b"gzip": "identity", b"identity": "gzip", None: "odd"}[rewritten]})
    headers = tuple((n, (rewritten or b"br") if n.lower() == b"accept-encoding" else v) for n, v in request.headers)
    changed = replace(request, headers=headers)
    if rewritten is None:
        assert refusal(changed) == "SignatureDoesNotMatch"
    else:
        assert verify(changed).access_key == ACCESS_KEY


def test_a_proxy_may_change_the_host_but_not_the_bucket() -> None:
    """A public name stands in for the Host header; where the host names the bucket, only with that bucket."""
    rules = Rules(region=REGION, public_hosts=("s3.example.org",))
    inner = replace(signed(url=url_of("a.jpg", host="s3.example.org")), host="10.0.0.7:8081")
    assert verify(inner, rules=rules).access_key == ACCESS_KEY
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(inner, rules=rules, host_bucket="others")
    own = replace(signed(url=url_of("a.jpg", host="others.s3.example.org", bucket="")), host="10.0.0.7")
    assert verify(own, rules=rules, host_bucket="others").access_key == ACCESS_KEY


def test_a_path_that_was_signed_unescaped() -> None:
    """The path as sent is tried after the recoded one, for clients that sign what they send."""
    request = signed(url=f"http://{HOST}/photos/a(1)+b.jpg")
    assert b"(1)+" in request.path
    assert verify(request).access_key == ACCESS_KEY


def test_a_foreign_authorization_leaves_the_query_in_force() -> None:
    """A bearer token beside a presigned URL is for somebody else."""
    request = signed(signer=auth.S3SigV4QueryAuth(credentials(), "s3", REGION))
    assert verify(replace(request, headers=(*request.headers, (b"Authorization", b"Bearer x")))).is_presigned


@pytest.mark.parametrize("repeats_it", [True, False])
def test_a_pinned_hash_is_enforced_wherever_it_is_signed(repeats_it: bool) -> None:
    """A presigned URL that pins the body's hash verifies with the hash or UNSIGNED-PAYLOAD as payload line."""
    digest = "ab" * 32
    signer = auth.S3SigV4QueryAuth(credentials(), "s3", REGION)
    signer.payload = lambda _: digest if repeats_it else "UNSIGNED-PAYLOAD"
    request = signed("PUT", url_of("a.jpg", [("X-Amz-Content-Sha256", digest)]), signer=signer)
    verified = verify(request)
    assert (verified.payload_mode, verified.payload_sha256) == (PayloadMode.SHA256, digest)
    assert strip_signature(request) == ()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a/b?x=1", b"/a/b", b"x=1"),
        (b"http://photos.example.org/a/b?x=1", b"/a/b", b"x=1"),
        (b"https://photos.example.org", b"/", b""),
        (b"https://photos.example.org?acl", b"/", b"acl"),
    ],
)
def test_request_lines_in_both_forms(target: bytes, path: bytes, query: bytes) -> None:
    """An absolute request line means the same as its path and query."""
    request = read_request("GET", target, [(b"Host", b"photos.example.org")])
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        (b"acl", b"acl="),
        (b"b=2&a=2&a=1&&a", b"a=&a=1&a=2&b=2"),
        (b"a=x+y%2Bz", b"a=x%20y%2Bz"),
        (b"a=%7e%c3%a9&X-Amz-Signature=1", b"a=~%C3%A9"),
        (b"a-=1&a=2", b"a=2&a-=1"),
    ],
)
def test_canonical_queries(query: bytes, canonical: bytes) -> None:
    """Plus is a space, bare names have empty values, duplicates stay, pairs are sorted by name and then value."""
    assert canonical_query(split_query(query)) == canonical


def test_an_anonymous_request_has_no_claim() -> None:
    """Nothing is claimed where nothing is signed."""
    assert read_claim(read_request("GET", b"/photos/a.jpg?x=1", [(b"Host", b"h")])) is None


def test_on_the_wire_keeps_the_target() -> None:
    """The oracle sends the very path and query that botocore signed."""
    from botocore.awsrequest import AWSRequest

    request = on_the_wire(AWSRequest(method="GET", url=f"http://{HOST}/photos/%61%2F?x=%20"))
    assert (request.path, request.query) == (b"/photos/%61%2F", b"x=%20")
