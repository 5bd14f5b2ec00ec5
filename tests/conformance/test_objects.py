"""Objects through the door: what is put, with all its headers, and how it is read, on conditions and by ranges."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools

from tests.conformance.conftest import compared
from tests.conformance.site import S3, Bucket

BODY = bytes(range(256)) * 40
RANGES = (
    "bytes=0-0",
    "bytes=0-",
    "bytes=4-7",
    "bytes=4-",
    "bytes=-7",
    "bytes=-0",
    "bytes=-99999",
    "bytes=10239-10239",
    "bytes=10239-99999",
    "bytes=10240-",
    "bytes=10240-10241",
    "bytes=7-4",
    "bytes=a-b",
    "bytes=1-2,4-5",
    "bytes= 1-2",
    "bytes 1-2",
    "bytes=",
    "lines=1-2",
    "1-2",
    "",
    "bytes=18446744073709551615-",
)
LONG_AGO, FAR_AHEAD = "Tue, 29 Oct 1994 19:43:31 GMT", "Tue, 29 Oct 2050 19:43:31 GMT"
KEYS = (
    "foo",
    "foo/",
    "/foo",
    "a//b",
    "two words",
    "a+b",
    "100%",
    "%2F",
    "%",
    "\u00fc\u00f1\u00ee",
    "\u5199\u771f",
    "camera \U0001f4f7",
    "a?b",
    "a#b",
    "a&b=c",
    "a;b,c:d",
    "'\"`",
    "<xml>&amp;",
    "\n",
    "tab\there",
    " ",
    "_",
    "__",
    "_foo",
    ".",
    "..",
    "./a",
    "a/../b",
    "a/./b",
    "~",
    "*",
    "back\\slash",
    "x" * 900,
    "x" * 1024,
    "x" * 1025,
)


@compared
def test_put_get_head_delete(s3: S3) -> None:
    """The whole life of an object, with every header that describes it."""
    bucket = s3.make_bucket()
    bucket.put_object(
        Key="foo",
        Body=BODY,
        CacheControl="public, max-age=14400",
        ContentDisposition='attachment; filename="a b.jpg"',
        ContentEncoding="identity",
        ContentLanguage="en",
        ContentType="application/x-test; charset=UTF-8",
        Expires="Tue, 29 Oct 2050 19:43:31 GMT",
        Metadata={"one": "1", "Two-Words": "a  b", "empty": ""},
    )
    bucket.head_object(Key="foo")
    bucket.get_object(Key="foo")
    bucket.get_object_attributes(Key="foo", ObjectAttributes=["ETag", "ObjectSize", "StorageClass"])
    bucket.put_object(Key="foo", Body=b"other")
    bucket.get_object(Key="foo")
    bucket.delete_object(Key="foo")
    bucket.get_object(Key="foo")
    bucket.head_object(Key="foo")
    bucket.delete_object(Key="foo")


@compared
def test_sizes(s3: S3) -> None:
    """Empty, small, and larger than any buffer."""
    bucket = s3.make_bucket()
    for size in (0, 1, 65_535, 65_536, 65_537, 1_000_001, 6_000_000):
        bucket.put_object(Key="sized", Body=(BODY * 600)[:size])
        bucket.head_object(Key="sized")
        bucket.get_object(Key="sized")


@compared
def test_awkward_keys(s3: S3) -> None:
    """Keys of every kind are stored, read, listed and deleted, or refused."""
    bucket = s3.make_bucket()
    for key in KEYS:
        bucket.send("PUT", key, body=key.encode()[:40])
        bucket.send("GET", key)
        bucket.send("HEAD", key)
    bucket.send("GET", query="encoding-type=url")
    bucket.list_objects_v2()
    for key in KEYS:
        bucket.send("DELETE", key)
    bucket.send("GET", query="encoding-type=url")


@compared
def test_raw_paths(s3: S3) -> None:
    """Paths as no client of good manners writes them."""
    bucket = s3.make_bucket()
    bucket.put("foo", "a b", "a+b", "\u00fc")
    for path in (
        "a+b",
        "a%2Bb",
        "a%20b",
        "%66oo",
        "f%6Fo",
        "%c3%bc",
        "%C3%BC",
        "a%2fb",
    ):
        s3.send("GET", f"=/{bucket.name}/{path}")
    for path in ("/{}//foo", "/{}/./foo", "/{}/x/../foo", "/{}/foo/", "/{}/", "/{}//"):
        s3.send("GET", "=" + path.format(bucket.name))
    with s3.refused_by_both():
        s3.send("GET", f"=//{bucket.name}/foo")
        s3.send("PUT", f"=/{bucket.name}/%ff%fe", body=b"x")
        s3.send("GET", f"=/{bucket.name}/%ff%fe")
        s3.send("GET", f"=/{bucket.name}/foo%00")
        bucket.send("PUT", "foo", headers=[("x-amz-meta-control", "a\x01b")], body=b"x")
    s3.send("GET", f"=http://{s3.site.host}/{bucket.name}/foo")


@compared
def test_metadata(s3: S3) -> None:
    """Names and values of metadata: many, long, empty, with blanks, in any alphabet."""
    bucket = s3.make_bucket()
    sets = (
        [("x-amz-meta-meta1", "mymeta")],
        [("x-amz-meta-meta1", "")],
        [("x-amz-meta-meta1", "  blanks   inside  ")],
        [("X-AMZ-META-CAPITALS", "Value")],
        [("x-amz-meta-a", "one"), ("x-amz-meta-a", "two")],
        [("x-amz-meta-under_score", "x"), ("x-amz-meta-dot.ted", "y")],
        [("x-amz-meta-utf", "Hello World\u00e9".encode().decode("latin-1"))],
        [("x-amz-meta-kanji", "\u5199\u771f".encode().decode("latin-1"))],
        [("x-amz-meta-quoted", "=?UTF-8?Q?ab=C3=A9?=")],
        [(f"x-amz-meta-{number}", "v" * 30) for number in range(40)],
        [("x-amz-meta-long", "v" * 2000)],
        [("x-amz-meta-longer", "v" * 9000)],
        [("x-amz-meta-", "no name")],
        [("x-amz-meta-tab", "a\tb")],
    )
    for number, headers in enumerate(sets):
        bucket.send("PUT", f"foo{number}", headers=headers, body=b"bar")
        bucket.send("HEAD", f"foo{number}")
        bucket.send("GET", f"foo{number}")
    bucket.send("PUT", "foo0", headers=[("x-amz-meta-other", "new")], body=b"bar")
    bucket.send("HEAD", "foo0")


@compared
def test_headers_kept(s3: S3) -> None:
    """Headers that a storage keeps with an object, one by one, and how they come back."""
    bucket = s3.make_bucket()
    headers = (
        ("Cache-Control", "no-cache"),
        ("Content-Disposition", "inline; filename*=UTF-8''%e2%82%ac%20rates"),
        ("Content-Encoding", "gzip"),
        ("Content-Encoding", "aws-chunked"),
        ("Content-Encoding", "gzip,aws-chunked"),
        ("Content-Encoding", ""),
        ("Content-Language", "de, en"),
        ("Content-Type", "text/plain"),
        ("Content-Type", ""),
        ("Content-Type", 'text/plain; charset="utf-8"'),
        ("Content-Type", "Text/HTML;Charset=UTF-8"),
        ("Expires", "Thu, 01 Dec 1994 16:00:00 GMT"),
        ("Expires", "never"),
        ("x-amz-storage-class", "STANDARD"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-storage-class", "NONSENSE"),
        ("x-amz-website-redirect-location", "/other"),
        ("x-amz-tagging", "a=1&b=two%20words"),
        ("x-amz-tagging", "a=1&a=2"),
        ("x-amz-tagging", "&".join(f"k{n}=v" for n in range(11))),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-request-payer", "requester"),
        ("x-amz-expected-bucket-owner", "nobody"),
        ("x-amz-copy-source-if-match", "nonsense"),
        ("x-amz-unknown-header", "value"),
        ("X-Custom", "value"),
        ("User-Agent", ""),
        ("User-Agent", "nonsense/1.0 (\u00fc)".encode().decode("latin-1")),
        ("Referer", "http://example.com/"),
        ("Cookie", "a=b"),
        ("Accept", "text/nonsense"),
        ("Accept-Encoding", "gzip"),
        ("Range", "bytes=1-2"),
        ("If-Modified-Since", FAR_AHEAD),
        ("Pragma", "no-cache"),
        ("Origin", "http://example.com"),
    )
    for number, header in enumerate(headers):
        bucket.send("PUT", f"foo{number}", headers=[header], body=b"bar")
        bucket.send("GET", f"foo{number}")
        bucket.send("HEAD", f"foo{number}")


@compared
def test_ranges(s3: S3) -> None:
    """Ranges of every form, of GET and of HEAD, of an object and of an empty one."""
    bucket = s3.make_bucket()
    bucket.put("foo", body=BODY)
    bucket.put("empty", body=b"")
    for asked in RANGES:
        bucket.send("GET", "foo", headers=[("Range", asked)])
        bucket.send("HEAD", "foo", headers=[("Range", asked)])
        bucket.send("GET", "empty", headers=[("Range", asked)])


@compared
def test_read_conditions(s3: S3) -> None:
    """Every pair of conditions of reading, met and not met."""
    bucket = s3.make_bucket()
    etag = f'"{hashlib.md5(BODY).hexdigest()}"'
    bucket.put("foo", body=BODY)
    conditions: list[tuple[str, str]] = [
        ("If-Match", etag),
        ("If-Match", etag.strip('"')),
        ("If-Match", '"ABCORZ"'),
        ("If-Match", "*"),
        ("If-Match", f'"a", {etag}'),
        ("If-None-Match", etag),
        ("If-None-Match", '"ABCORZ"'),
        ("If-None-Match", "*"),
        ("If-None-Match", f"W/{etag}"),
        ("If-Modified-Since", LONG_AGO),
        ("If-Modified-Since", FAR_AHEAD),
        ("If-Modified-Since", "nonsense"),
        ("If-Unmodified-Since", LONG_AGO),
        ("If-Unmodified-Since", FAR_AHEAD),
        ("If-Unmodified-Since", "nonsense"),
    ]
    for one in conditions:
        bucket.send("GET", "foo", headers=[one])
        bucket.send("HEAD", "foo", headers=[one])
        bucket.send("GET", "absent", headers=[one])
    for one, other in itertools.combinations(conditions, 2):
        if one[0] != other[0]:
            bucket.send("GET", "foo", headers=[one, other])
    bucket.send("GET", "foo", headers=[("If-Match", etag), ("Range", "bytes=0-3")])
    bucket.send("GET", "foo", headers=[("If-Range", etag), ("Range", "bytes=0-3")])
    bucket.send("GET", "foo", headers=[("If-Range", '"other"'), ("Range", "bytes=0-3")])


@compared
def test_write_conditions(s3: S3) -> None:
    """Puts and deletes on condition, of an object that is there and of one that is not."""
    bucket = s3.make_bucket()
    etag = f'"{hashlib.md5(b"one").hexdigest()}"'
    for condition in (
        ("If-None-Match", "*"),
        ("If-None-Match", etag),
        ("If-None-Match", '"other"'),
        ("If-Match", etag),
        ("If-Match", "*"),
        ("If-Match", '"other"'),
        ("If-Unmodified-Since", LONG_AGO),
    ):
        bucket.put("foo", body=b"one")
        bucket.send("PUT", "foo", headers=[condition], body=b"two")
        bucket.send("GET", "foo")
        bucket.send("PUT", "absent", headers=[condition], body=b"two")
        bucket.send("GET", "absent")
        bucket.send("DELETE", "foo", headers=[condition])
        bucket.send("DELETE", "absent", headers=[condition])
        bucket.send("GET", "foo")


@compared
def test_overridden_answer_headers(s3: S3) -> None:
    """response- parameters set the headers of an answer."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    every = {
        "ResponseCacheControl": "no-cache",
        "ResponseContentDisposition": "attachment; filename=b\u00fc.txt".encode().decode("latin-1"),
        "ResponseContentEncoding": "aaa",
        "ResponseContentLanguage": "esperanto",
        "ResponseContentType": "foo/bar",
        "ResponseExpires": "Thu, 01 Dec 1994 16:00:00 GMT",
    }
    bucket.get_object(Key="foo", **every)
    bucket.head_object(Key="foo", **every)
    for name, value in every.items():
        bucket.get_object(Key="foo", **{name: value})
    bucket.send("GET", "foo", query="response-content-type")
    bucket.send("GET", "foo", query="response-nonsense=1")
    bucket.stranger.send("GET", "foo", query="response-content-type=a/b", is_signed=False)


@compared
def test_bodies_that_are_stated_wrongly(s3: S3) -> None:
    """MD5, SHA-256 and checksums that are wrong, malformed or right."""
    bucket = s3.make_bucket()
    md5 = base64.b64encode(hashlib.md5(b"bar").digest()).decode()
    sha = base64.b64encode(hashlib.sha256(b"bar").digest()).decode()
    for number, headers in enumerate(
        (
            [("Content-MD5", md5)],
            [("Content-MD5", "rL0Y20xC+Fzt72VPzMSk2A==")],
            [("Content-MD5", "")],
            [("Content-MD5", "AWS HAHAHA")],
            [("Content-MD5", md5.rstrip("="))],
            [("x-amz-checksum-sha256", sha)],
        )
    ):
        bucket.send("PUT", f"foo{number}", headers=headers, body=b"bar")
        bucket.send("GET", f"foo{number}")
    bucket.send("PUT", "unsigned", payload="UNSIGNED-PAYLOAD", body=b"bar")
    with s3.refused_by_both():
        for value in ("YWJyYWNhZGFicmE=", hashlib.md5(b"bar").hexdigest()):
            bucket.send("PUT", "foo", headers=[("Content-MD5", value)], body=b"bar")
    with s3.refused_alike_or_more_strictly():  # a hash is checked by the door, whatever the storage does
        for payload in (hashlib.sha256(b"baz").hexdigest(), "NONSENSE", "0" * 63, ""):
            bucket.send("PUT", "hashed", payload=payload, body=b"bar")
    # RGW 16 looks at none of these.
    with s3.refused_alike_or_more_strictly() if s3.site.storage == "rgw" else contextlib.nullcontext():
        for name, value in (("sha256", "bad"), ("sha256", md5), ("crc64nvme", "bad"), ("crc32", "AAAAAA==")):
            bucket.send("PUT", "checked", headers=[(f"x-amz-checksum-{name}", value)], body=b"bar")


@compared
def test_deleting_many(s3: S3) -> None:
    """Batches: with keys that are absent, repeated, awkward; quiet; malformed; too many."""
    bucket = s3.make_bucket()
    keys = [key for key in KEYS[4:24] if key not in ("\n", "%", ".", "..")]
    bucket.put(*keys)
    bucket.delete_objects(Delete={"Objects": [{"Key": key} for key in [*keys, "absent", keys[0]]]})
    bucket.list_objects()
    bucket.put("a", "b", "c")
    bucket.delete_objects(Delete={"Objects": [{"Key": "a"}, {"Key": "absent"}], "Quiet": True})
    bucket.delete_objects(Delete={"Objects": [{"Key": "b", "VersionId": "null"}]})
    bucket.delete_objects(Delete={"Objects": [{"Key": "c", "VersionId": "nonsense"}]})
    bucket.list_objects()
    for body in (
        b"<Delete></Delete>",
        b"<Delete/>",
        b"<Delete><Quiet>maybe</Quiet><Object><Key>c</Key></Object></Delete>",
        b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>c</Key></Object></Delete>',
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Delete><Object><Key>c</Key></Object></Delete>',
    ):
        bucket.put("c")
        _delete(bucket, body)
        bucket.send("HEAD", "c")
    bucket.send("POST", query="delete", body=b"<Delete><Object><Key>c</Key></Object></Delete>")


@compared
def test_batches_that_cannot_be_read(s3: S3) -> None:
    """Batches that are malformed or too large; the door refuses all of them, because it has to know whose keys go."""
    bucket = s3.make_bucket()
    with s3.refused_alike_or_more_strictly():
        bucket.delete_objects(Delete={"Objects": [{"Key": str(number)} for number in range(1001)]})
        for body in (
            b"",
            b"nonsense",
            b"<Delete><Object></Object></Delete>",
            b"<Delete><Object><Key></Key></Object></Delete>",
            b"<Delete><Object><Key>c</Key></Object>",
            b"<Other><Object><Key>c</Key></Object></Other>",
        ):
            _delete(bucket, body)


@compared
def test_what_a_method_does_not_do(s3: S3) -> None:
    """Methods that S3 does not have for a service, a bucket or an object."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    bucket.send("GET", "foo", query="nonsense=1")
    with s3.refused_by_both():
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            s3.send(method, "/")
        for method in ("POST", "PATCH"):
            bucket.send(method)
            bucket.send(method, "foo")
    bucket.send("OPTIONS")
    bucket.send("OPTIONS", "foo")


@compared
def test_unknown_sub_resources(s3: S3) -> None:
    """What the door does not know it does not pass on as the plain operation, which storages would run."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    with s3.refused_alike_or_more_strictly():
        bucket.send("GET", "foo", query="nonsense")
        bucket.send("PUT", "foo", query="nonsense", body=b"x")
        bucket.send("POST", "foo", query="nonsense")
        bucket.send("DELETE", "foo", query="nonsense=1")
        bucket.send("DELETE", query="nonsense=1")


def _delete(bucket: Bucket, body: bytes) -> None:
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    bucket.send("POST", query="delete", headers=[("Content-MD5", md5)], body=body)
