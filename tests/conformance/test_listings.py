"""Listings through the door say what the storage's own say: both versions, versions of objects, buckets."""

from __future__ import annotations

from itertools import product
from urllib.parse import quote

from tests.conformance.conftest import compared
from tests.conformance.site import S3, Bucket

KEYS = (
    "asdf",
    "asdf+b",
    "boo/bar",
    "boo/baz/xyzzy",
    "cquux/bla",
    "cquux/thud",
    "foo+1/bar",
    "quux ab/thud",
    "with<xml>&amp;",
    "_under/score",
    "\u00fcber/\u5199\u771f",
    "percent%25/a%2Fb",
)
PREFIXES = ("", "boo/", "boo", "nothing/", "\u00fc", "quux a", "cquux/", "percent%")
DELIMITERS = ("", "/", "a", " ", "%", "zz")
# Sent as they stand: what no client of good manners would send.
ODD = (
    "max-keys=0",
    "max-keys=-1",
    "max-keys=blah",
    "max-keys=",
    "max-keys=99999",
    "max-keys=2147483648",
    "max-keys=1&max-keys=2",
    "encoding-type=url",
    "encoding-type=",
    "encoding-type=base64",
    "delimiter=%0A",
    "prefix=%0A",
    "prefix=%2B",
    "prefix=+",
    "marker=%0A",
    "marker=zzz",
    "marker=boo%2F",
    "marker=boo/&delimiter=/",
    "start-after=boo",
    "continuation-token=",
    "continuation-token=nonsense",
    "list-type=1",
    "list-type=3",
    "list-type=",
    "list-type=2&marker=b",
    "list-type=2&continuation-token=",
    "list-type=2&continuation-token=nonsense",
    "list-type=2&start-after=",
    "list-type=2&start-after=boo/baz",
    "list-type=2&fetch-owner=true",
    "list-type=2&fetch-owner=false",
    "list-type=2&fetch-owner=blah",
    "list-type=2&max-keys=0",
    "list-type=2&max-keys=blah",
    "allow-unordered=true",
    "allow-unordered=true&delimiter=/",
    "list-type=2&allow-unordered=true",
    "unknown=1",
    "x-id=ListObjects",
    "prefix",
    "delimiter",
    "prefix=%FF",
    "prefix=%C3%BC",
    "marker=%FF",
)


@compared
def test_empty(s3: S3) -> None:
    """An empty bucket."""
    bucket = s3.make_bucket()
    bucket.list_objects()
    bucket.list_objects_v2()
    bucket.list_object_versions()
    bucket.list_multipart_uploads()


@compared
def test_combinations(s3: S3) -> None:
    """Every prefix with every delimiter, at once and in pages, in both versions, encoded and not."""
    bucket = _filled(s3)
    for prefix, delimiter, size in product(PREFIXES, DELIMITERS, (1000, 2)):
        if size == 2 and delimiter not in ("", "/"):
            continue
        bucket.list_objects(Prefix=prefix, Delimiter=delimiter, MaxKeys=size)
        bucket.list_objects_v2(Prefix=prefix, Delimiter=delimiter, MaxKeys=size)
    for delimiter in DELIMITERS:
        query = f"encoding-type=url&delimiter={quote(delimiter)}"
        bucket.send("GET", query=query)
        bucket.send("GET", query=f"list-type=2&{query}")


@compared
def test_pages(s3: S3) -> None:
    """Page after page, by marker and by token."""
    bucket = _filled(s3)
    for delimiter, size in product(("", "/"), (1, 3)):
        marker, token = "", None
        for _ in range(20):
            page = bucket.list_objects(MaxKeys=size, Delimiter=delimiter, Marker=marker)
            marker = page.get("NextMarker") or (page.get("Contents") or [{}])[-1].get("Key", "")
            if not page["IsTruncated"]:
                break
        for _ in range(20):
            more = {"ContinuationToken": token} if token else {}
            page = bucket.list_objects_v2(MaxKeys=size, Delimiter=delimiter, **more)
            token = page.get("NextContinuationToken")
            if not page["IsTruncated"]:
                break


@compared
def test_markers(s3: S3) -> None:
    """Markers before, at, between and behind the keys."""
    bucket = _filled(s3)
    for marker in ("", " ", "\n", "asdf", "b", "boo/bar", "boo/zzz", "zzzz", "\u00fc", "a+b", "a%2Bb"):
        bucket.list_objects(Marker=marker)
        bucket.list_objects_v2(StartAfter=marker)


@compared
def test_odd_parameters(s3: S3) -> None:
    """Parameters that are empty, wrong, repeated or unknown."""
    bucket = _filled(s3)
    for query in ODD:
        bucket.send("GET", query=query)
    bucket.send("GET", query="versions&max-keys=2")
    bucket.send("GET", query="versions&encoding-type=url&delimiter=/")
    bucket.send("GET", query="uploads&max-uploads=blah")
    bucket.send("GET", query="uploads&encoding-type=url")


@compared
def test_absent_buckets(s3: S3) -> None:
    """Buckets that are not there."""
    s3.make_bucket()
    absent = s3.bucket(s3.new_name())
    absent.list_objects()
    absent.list_objects_v2()
    absent.list_object_versions()
    absent.list_multipart_uploads()
    absent.head_bucket()
    absent.get_bucket_location()
    absent.get_bucket_acl()
    absent.delete_bucket()
    absent.put_object(Key="foo", Body=b"bar")
    absent.get_object(Key="foo")
    absent.delete_object(Key="foo")
    absent.delete_objects(Delete={"Objects": [{"Key": "foo"}]})
    absent.create_multipart_upload(Key="foo")


@compared
def test_more_than_a_page(s3: S3) -> None:
    """More keys than the default page holds are not asked for: the default is taken over from the storage."""
    bucket = s3.make_bucket()
    bucket.put(*(f"{number:03}" for number in range(40)))
    bucket.list_objects(MaxKeys=39)
    bucket.list_objects(MaxKeys=40)
    bucket.list_objects_v2(MaxKeys=41)
    bucket.list_object_versions(MaxKeys=7)
    bucket.send("GET", query="max-keys=39&marker=")


def _filled(s3: S3) -> Bucket:
    bucket = s3.make_bucket()
    bucket.put(*KEYS)
    return bucket
