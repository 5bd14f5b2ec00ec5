"""Versions through the door: put, listed, read, deleted, suspended, and delete markers."""

from __future__ import annotations

from tests.conformance.conftest import compared
from tests.conformance.site import S3, Bucket


@compared
def test_states(s3: S3) -> None:
    """Not set, enabled, suspended, nonsense."""
    bucket = s3.make_bucket()
    bucket.get_bucket_versioning()
    bucket.list_object_versions()
    for status in ("Enabled", "Suspended", "Enabled", "enabled", "Nonsense", ""):
        bucket.put_bucket_versioning(VersioningConfiguration={"Status": status})
        bucket.get_bucket_versioning()
    bucket.send("PUT", query="versioning", body=b"nonsense")
    bucket.by("alt").put_bucket_versioning(VersioningConfiguration={"Status": "Enabled"})
    bucket.by("alt").get_bucket_versioning()


@compared
def test_versions_of_an_object(s3: S3) -> None:
    """Each version is read, described and deleted by its id; markers come and go."""
    bucket = _versioned(s3)
    ids = [bucket.put_object(Key="foo", Body=body)["VersionId"] for body in (b"one", b"two", b"three")]
    bucket.get_object(Key="foo")
    for version in (*ids, "null", "absent", ""):
        bucket.send("GET", "foo", query=f"versionId={version}")
        bucket.send("HEAD", "foo", query=f"versionId={version}")
    bucket.list_object_versions()
    marker = bucket.delete_object(Key="foo")["VersionId"]
    bucket.get_object(Key="foo")
    bucket.head_object(Key="foo")
    bucket.get_object(Key="foo", VersionId=marker)
    bucket.head_object(Key="foo", VersionId=marker)
    bucket.list_objects()
    bucket.list_object_versions()
    bucket.delete_object(Key="foo", VersionId=marker)
    bucket.get_object(Key="foo")
    bucket.delete_object(Key="foo", VersionId=ids[2])
    bucket.get_object(Key="foo")
    bucket.delete_object(Key="foo", VersionId="null")
    bucket.delete_object(Key="foo", VersionId=ids[0])
    bucket.delete_object(Key="foo", VersionId=ids[0])
    bucket.delete_object(Key="foo", VersionId=ids[1])
    bucket.list_object_versions()
    bucket.delete_object(Key="never there")
    bucket.list_object_versions()
    bucket.delete_bucket()


@compared
def test_null_versions(s3: S3) -> None:
    """Objects from before versioning and while it was suspended have the version null."""
    bucket = s3.make_bucket()
    bucket.put("foo", body=b"before")
    _enable(bucket)
    bucket.put("foo", body=b"enabled")
    _enable(bucket, "Suspended")
    bucket.put("foo", body=b"suspended")
    bucket.list_object_versions()
    bucket.get_object(Key="foo", VersionId="null")
    bucket.delete_object(Key="foo")
    bucket.list_object_versions()
    bucket.delete_object(Key="foo", VersionId="null")
    bucket.get_object(Key="foo")
    bucket.list_object_versions()


@compared
def test_listing(s3: S3) -> None:
    """Versions by prefix, delimiter, in pages."""
    bucket = _versioned(s3)
    for key in ("a/1", "a/1", "a/2", "b", "b", "\u00fc +"):
        bucket.put(key)
    bucket.delete_object(Key="b")
    bucket.list_object_versions(Prefix="a/")
    bucket.list_object_versions(Delimiter="/")
    bucket.list_object_versions(EncodingType="url")
    key_marker, version_marker = "", ""
    for _ in range(8):
        page = bucket.list_object_versions(MaxKeys=2, KeyMarker=key_marker, VersionIdMarker=version_marker)
        if not page["IsTruncated"]:
            break
        key_marker, version_marker = page["NextKeyMarker"], page["NextVersionIdMarker"]


@compared
def test_deleting_many(s3: S3) -> None:
    """Batches with versions, with markers, and with both."""
    bucket = _versioned(s3)
    ids = [bucket.put_object(Key="foo", Body=body)["VersionId"] for body in (b"one", b"two")]
    bucket.delete_objects(Delete={"Objects": [{"Key": "foo"}]})
    bucket.delete_objects(Delete={"Objects": [{"Key": "foo", "VersionId": ids[0]}]})
    bucket.delete_objects(Delete={"Objects": [{"Key": "foo", "VersionId": ids[0]}]})
    told = bucket.list_object_versions()
    markers = [{"Key": "foo", "VersionId": item["VersionId"]} for item in told.get("DeleteMarkers", [])]
    bucket.delete_objects(Delete={"Objects": markers})
    bucket.get_object(Key="foo")


@compared
def test_copies(s3: S3) -> None:
    """A version is copied, onto its own key too, which brings it back."""
    bucket = _versioned(s3)
    ids = [bucket.put_object(Key="foo", Body=body, Metadata={"a": "1"})["VersionId"] for body in (b"one", b"two")]
    source = {"Bucket": bucket.name, "Key": "foo", "VersionId": ids[0]}
    bucket.copy_object(Key="bar", CopySource=source)
    bucket.get_object(Key="bar")
    bucket.copy_object(Key="foo", CopySource=source)
    bucket.get_object(Key="foo")
    bucket.delete_object(Key="foo")
    bucket.copy_object(Key="baz", CopySource={"Bucket": bucket.name, "Key": "foo"})
    upload = bucket.create_multipart_upload(Key="parts")["UploadId"]
    part = bucket.upload_part_copy(Key="parts", UploadId=upload, PartNumber=1, CopySource=source)
    etag = part["CopyPartResult"]["ETag"]
    bucket.complete_multipart_upload(
        Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    bucket.get_object(Key="parts")


@compared
def test_details_of_versions(s3: S3) -> None:
    """Tags and ACLs of one version."""
    bucket = _versioned(s3)
    ids = [bucket.put_object(Key="foo", Body=body)["VersionId"] for body in (b"one", b"two")]
    bucket.put_object_tagging(Key="foo", VersionId=ids[0], Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    bucket.get_object_tagging(Key="foo", VersionId=ids[0])
    bucket.get_object_tagging(Key="foo")
    bucket.delete_object_tagging(Key="foo", VersionId=ids[0])
    bucket.put_object_acl(Key="foo", VersionId=ids[0], ACL="public-read")
    bucket.get_object_acl(Key="foo", VersionId=ids[0])
    bucket.get_object_acl(Key="foo")
    bucket.stranger.get_object(Key="foo", VersionId=ids[0])
    bucket.stranger.get_object(Key="foo")


def _versioned(s3: S3) -> Bucket:
    bucket = s3.make_bucket()
    _enable(bucket)
    return bucket


def _enable(bucket: Bucket, status: str = "Enabled") -> None:
    bucket.put_bucket_versioning(VersioningConfiguration={"Status": status})
