"""Requests that no library makes: lengths, encodings, dates, authorizations and expectations that are wrong or rare."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from email.utils import formatdate

from tests.conformance.conftest import compared
from tests.conformance.site import S3

TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"
CHUNKED = [("Transfer-Encoding", "chunked")]


@compared
def test_chunked_transfers(s3: S3) -> None:
    """A body without a length, in chunks of HTTP's own."""
    bucket = s3.make_bucket()
    framed = b"3\r\nbar\r\n4\r\nbaz!\r\n0\r\n\r\n"
    for payload in ("UNSIGNED-PAYLOAD", hashlib.sha256(b"barbaz!").hexdigest()):
        bucket.send("PUT", "foo", late=CHUNKED, body=framed, payload=payload)
        bucket.send("GET", "foo")
    bucket.send("PUT", "empty", late=CHUNKED, body=b"0\r\n\r\n", payload="UNSIGNED-PAYLOAD")
    bucket.send("GET", "empty")
    bucket.send(
        "PUT",
        "large",
        late=CHUNKED,
        body=b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n0\r\n\r\n",
        payload="UNSIGNED-PAYLOAD",
    )
    bucket.send("GET", "large")
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(TAGS), TAGS)
    with s3.taken_at_least_by_the_door():  # which reads XML before it sends it on, with its length
        bucket.send("PUT", query="tagging", late=CHUNKED, payload=hashlib.sha256(TAGS).hexdigest(), body=framed)


@compared
def test_lengths(s3: S3) -> None:
    """Lengths that are missing, empty, negative, or no numbers."""
    bucket = s3.make_bucket()
    bucket.send("PUT", "foo", length=None)
    bucket.send("GET", "foo")
    bucket.put("foo")
    bucket.send("PUT", "foo", query="acl", headers=[("x-amz-acl", "public-read")], length=None)
    bucket.send("GET", "foo", query="acl")
    s3.send("PUT", f"/{s3.new_name()}", length=None)
    bucket.send("POST", "foo", query="uploads", length=None)
    bucket.send("DELETE", "foo", length=None)
    with s3.refused_by_both():
        for length in ("-1", "abc", "1 2", "99999999999999999999999"):
            bucket.send("PUT", "foo", late=[("Content-Length", length)])


@compared
def test_expectations(s3: S3) -> None:
    """Expect: as it should be, empty, and nonsense."""
    bucket = s3.make_bucket()
    for number, value in enumerate(("100-continue", "100-Continue", "", "200", "nonsense")):
        with s3.taken_at_least_by_the_door(number > 2):  # SeaweedFS wants them meant
            bucket.send("PUT", f"foo{number}", late=[("Expect", value)], body=b"bar")
            bucket.send("GET", f"foo{number}")
            s3.send("PUT", f"/{s3.new_name()}", late=[("Expect", value)])


@compared
def test_the_body_is_not_asked_of_whom_it_will_not_be_taken_from(s3: S3) -> None:
    """A stranger that waits for leave to send its body gets its refusal at once, and leave where it may write."""
    bucket = s3.make_bucket()
    waits = [("Content-Length", "123"), ("Expect", "100-continue"), ("Accept-Encoding", "identity")]
    s3.first_line("PUT", f"/{bucket.name}/foo", waits)
    bucket.put_bucket_acl(ACL="public-read-write")
    s3.first_line("PUT", f"/{bucket.name}/foo", waits)
    s3.first_line("PUT", "/absent-bucket/foo", waits)
    bucket.list_objects()


@compared
def test_dates(s3: S3) -> None:
    """Dates that are missing, malformed, or too far off."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    bucket.send("GET", "foo", late=[("Date", formatdate(usegmt=True))])
    for minutes in (-14, 14):
        bucket.send("GET", "foo", shift=timedelta(minutes=minutes))
    with s3.refused_by_both():
        for minutes in (-17, 17, -60 * 24 * 400, 60 * 24 * 400):
            bucket.send("GET", "foo", shift=timedelta(minutes=minutes))
        bucket.send("GET", "foo", without=["x-amz-date"])
        bucket.send("GET", "foo", late=[("x-amz-date", "")])
        bucket.send("GET", "foo", late=[("x-amz-date", "nonsense")])
        bucket.send("GET", "foo", late=[("x-amz-date", formatdate(usegmt=True))])


@compared
def test_authorizations(s3: S3) -> None:
    """Authorization headers that are missing, empty, malformed, or of somebody else's scheme."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    for method in ("GET", "PUT"):
        bucket.send(method, "foo", without=["authorization"], body=b"x" if method == "PUT" else b"")
        bucket.send(method, "foo", late=[("Authorization", "")], body=b"x" if method == "PUT" else b"")
    s3.send("PUT", f"/{s3.new_name()}", late=[("Authorization", "")])
    s3.send("PUT", f"/{s3.new_name()}", without=["authorization"])
    s3.send("GET", "/", without=["authorization"])
    s3.send("GET", "/", late=[("Authorization", "")])
    with s3.refused_by_both():
        for value in (
            "AWS HAHAHA",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 Credential=a",
            "AWS4-HMAC-SHA256 nonsense",
            "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=0",
            "Basic YTpi",
            "Bearer abc",
            "nonsense",
        ):
            bucket.send("GET", "foo", late=[("Authorization", value)])
        s3.by("bad").send("GET", "/")
        s3.by("bad").list_buckets()
        bucket.by("bad").get_object(Key="foo")
    s3.by("unknown").list_buckets()


@compared
def test_what_was_signed(s3: S3) -> None:
    """A header, a query or a body that is not what was signed is refused; one that was not signed is not missed."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    bucket.send("GET", "foo", late=[("X-Unsigned", "value"), ("Accept", "*/*")])
    with s3.refused_by_both():
        bucket.send("PUT", "foo", headers=[("x-amz-meta-a", "1")], late=[("x-amz-meta-a", "2")], body=b"x")
        bucket.send("PUT", "foo", headers=[("x-amz-meta-a", "1")], without=["x-amz-meta-a"], body=b"x")
        bucket.send("PUT", "foo", headers=[("Content-Type", "a/b")], late=[("Content-Type", "c/d")], body=b"x")
        bucket.send("GET", "foo", late=[("Host", "elsewhere.example")])
        bucket.send("GET", "foo", late=[("x-amz-content-sha256", "0" * 64)])
    with s3.refused_alike_or_more_strictly():  # RGW and SeaweedFS take them
        bucket.send("PUT", "foo", late=[("x-amz-acl", "public-read")], body=b"x")
        bucket.send("PUT", "foo", late=[("x-amz-meta-b", "2")], body=b"x")
        bucket.send("GET", "foo", without=["x-amz-content-sha256"])


@compared
def test_http_forms(s3: S3) -> None:
    """HTTP/1.0's habits, long queries, many headers."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    bucket.send("GET", "foo", late=[(f"X-Header-{number}", "v" * 50) for number in range(40)])
    bucket.send("GET", query="prefix=" + "p" * 1000)
    bucket.send("GET", query="prefix=" + "p" * 1025)
    bucket.send("GET", query="delimiter=" + "d" * 300)
    bucket.send("GET", "foo", late=[("Connection", "keep-alive")])


@compared
def test_selecting(s3: S3) -> None:
    """S3 Select over a CSV object, and restoring one. Not by RGW 16, which dies of the next form after it."""
    bucket = s3.make_bucket()
    bucket.put("foo.csv", body=b"1,a\n2,b\n3,c\n")
    request = (
        "<SelectObjectContentRequest><Expression>select count(*) from s3object;</Expression>"
        "<ExpressionType>SQL</ExpressionType><InputSerialization><CSV/></InputSerialization>"
        "<OutputSerialization><CSV/></OutputSerialization></SelectObjectContentRequest>"
    )
    if s3.site.storage != "rgw":
        bucket.send("POST", "foo.csv", query="select&select-type=2", body=request.encode())
    bucket.send("POST", "foo.csv", query="restore", body=b"<RestoreRequest><Days>1</Days></RestoreRequest>")
