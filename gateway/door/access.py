"""May this key do that? Scopes, the places a key is limited to, and what no client may do at all. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.reach import Reach
from gateway.s3.errors import S3Error
from gateway.s3.operations import Asked, Body
from gateway.s3.request import RawRequest

_LISTINGS = frozenset({"ListObjects", "ListObjectsV2", "ListObjectVersions", "ListMultipartUploads"})
_ABOUT_ANY_PART = frozenset({"HeadBucket", "GetBucketLocation", "DeleteObjects", "PostObject"})
_PUBLIC = frozenset({"GetObject", "HeadObject"})
# They speak of other buckets too, or of all of them.
_REACH_FURTHER = frozenset(
    {
        "GetUsage",
        "PutBucketAnalytics",
        "PutBucketInventory",
        "PutBucketLogging",
        "PutBucketNotification",
        "PutBucketReplication",
    }
)
_BYPASS = b"x-amz-bypass-governance-retention"
_CLOSED_ACLS = frozenset({"", "private", "bucket-owner-full-control"})


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What somebody may do."""

    scopes: frozenset[str]
    reach: Reach


def check(asked: Asked, rights: Rights, request: RawRequest, *, derived_bucket: str) -> None:
    """Raises S3Error AccessDenied."""
    operation, target = asked.operation, asked.target
    if operation.scope is not None and operation.scope not in rights.scopes:
        raise S3Error("AccessDenied", f"It needs the scope {operation.scope!r}, which this key does not have.")
    check_derived(asked, derived_bucket)
    if request.stated(_BYPASS) is not None and "admin" not in rights.scopes:
        raise S3Error("AccessDenied", "Bypassing a retention needs the scope 'admin'.")
    if operation.scope == "write":
        check_grants(_stated_grants(request), rights)
    if operation.name in _REACH_FURTHER and rights.reach.is_limited:
        raise out_of_reach()
    if target.bucket is not None and not _reaches(asked, rights.reach, request):
        raise out_of_reach()
    source = asked.copy_source
    if source is not None:
        if "read" not in rights.scopes:
            raise S3Error("AccessDenied", "Copying needs the scope 'read' for its source.")
        if not rights.reach.covers(source.bucket, source.key):
            raise out_of_reach()


def check_derived(asked: Asked, derived_bucket: str) -> None:
    """What holds for strangers, too, whose other requests the storage judges. Raises S3Error AccessDenied."""
    bucket = asked.target.bucket or ""
    # Ceph RGW takes a tenant before the name, which may be empty.
    if bucket.rpartition(":")[2] == derived_bucket and asked.operation.scope != "read":
        raise S3Error("AccessDenied", "Only Safelight writes to the bucket of derived objects.")


def check_grants(stated: Iterable[tuple[str, str]], rights: Rights) -> None:
    """Letting others in while storing needs what PutObjectAcl needs. `stated`: headers or fields. Raises S3Error
    AccessDenied."""
    if "admin" in rights.scopes:
        return
    for name, value in stated:
        lower = name.lower()
        opens = lower in ("acl", "x-amz-acl") and value.strip() not in _CLOSED_ACLS
        if opens or lower.startswith("x-amz-grant-"):
            raise S3Error("AccessDenied", f"Setting {lower} needs the scope 'admin', unless it is an ACL of private.")


def check_overrides(request: RawRequest) -> None:
    """A stranger may not choose as what something public is shown: as a page, a preview could run a script. Raises
    S3Error InvalidRequest."""
    if any(pair.name.lower().startswith(b"response-") for pair in request.pairs):
        raise S3Error("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")


def check_keys(bucket: str, keys: Iterable[str], reach: Reach) -> None:
    """For operations that name their objects in the body. Raises S3Error AccessDenied."""
    if not all(reach.covers(bucket, key) for key in keys):
        raise out_of_reach()


def is_public(asked: Asked, places: Reach | None) -> bool:
    """Whether anybody may read this. `places` None: nothing is public."""
    target = asked.target
    if places is None or asked.operation.name not in _PUBLIC or target.bucket is None or target.key is None:
        return False
    return places.covers(target.bucket, target.key)


def out_of_reach() -> S3Error:
    return S3Error("AccessDenied", "This key is limited to other buckets or prefixes.")


def _stated_grants(request: RawRequest) -> Iterable[tuple[str, str]]:
    """Headers, and what a presigner made parameters of."""
    stated = (*request.headers, *((pair.name, pair.value) for pair in request.pairs))
    return (
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in stated
        if name.lower() == b"x-amz-acl" or name.lower().startswith(b"x-amz-grant-")
    )


def _reaches(asked: Asked, reach: Reach, request: RawRequest) -> bool:
    operation, target = asked.operation, asked.target
    assert target.bucket is not None
    if not reach.is_limited:
        return True
    if target.key is not None:
        return reach.covers(target.bucket, target.key)
    if operation.name in _LISTINGS:
        prefix = (request.parameter(b"prefix") or b"").decode("utf-8", "replace")
        return reach.covers_prefix(target.bucket, prefix)
    if operation.name in _ABOUT_ANY_PART or operation.body is Body.FORM:
        return reach.touches(target.bucket)
    return reach.covers_bucket(target.bucket)
