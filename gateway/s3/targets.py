"""Which bucket and key a request speaks of: from the path, or from the host where that is a bucket's own.

Keys come out exactly as the client means them; whether the storage can keep them is storage.keys' business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

from gateway.s3.errors import S3Error
from gateway.s3.request import RawRequest

Kind = Literal["service", "bucket", "object"]

# Of a host, which is lower-case; what storages have ever allowed in names of buckets.
_LABELS = re.compile("[a-z0-9][a-z0-9._-]*")
# MinIO's, RustFS' and RGW's own programs lie there: what would be signed for them is no S3.
_NO_BUCKETS = frozenset({"admin", "minio", "rustfs"})


@dataclass(frozen=True, kw_only=True)
class Target:
    """`host_bucket`: the bucket, where the host named it and the path does not."""

    bucket: str | None = None
    key: str | None = None
    host_bucket: str | None = None

    @property
    def kind(self) -> Kind:
        if self.bucket is None:
            return "service"
        return "bucket" if self.key is None else "object"


@dataclass(frozen=True, kw_only=True)
class CopySource:
    """The object that a copy reads; reading it needs leave of its own."""

    bucket: str
    key: str
    version_id: str | None


def locate(request: RawRequest, domains: Iterable[str] = ()) -> Target:
    """The target of a request. `domains`: hosts whose subdomains are buckets. Raises S3Error InvalidURI,
    InvalidBucketName, AccessDenied."""
    path = _decode(request.path).removeprefix("/")
    host_bucket = _bucket_of_host(request.host, domains)
    if host_bucket is not None:
        _check_bucket(host_bucket)
        return Target(bucket=host_bucket, key=path or None, host_bucket=host_bucket)
    bucket, _, key = path.partition("/")
    if not bucket and key:
        raise S3Error("InvalidURI")
    _check_bucket(bucket)
    return Target(bucket=bucket or None, key=key or None)


def read_copy_source(request: RawRequest) -> CopySource | None:
    """What x-amz-copy-source names, in the header or hoisted into the query. Raises S3Error InvalidArgument,
    NotImplemented."""
    stated = request.stated(b"x-amz-copy-source")
    if stated is None:
        return None
    if stated.lower().startswith(b"arn:"):
        raise S3Error("NotImplemented", "Access points are not supported.")
    path, _, version = stated.partition(b"?versionId=")
    bucket, _, key = _decode(path).removeprefix("/").partition("/")
    if not bucket or not key:
        raise S3Error(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            details={"ArgumentName": "x-amz-copy-source"},
        )
    return CopySource(bucket=bucket, key=key, version_id=_decode(version) or None)


def _bucket_of_host(host: str, domains: Iterable[str]) -> str | None:
    name = host.lower()
    if not name.endswith("]"):  # an IPv6 address without a port
        name = name.rpartition(":")[0] or name
    fitting = [domain for domain in domains if name.endswith("." + domain.lower())]
    if not fitting:
        return None
    bucket = name[: -len(max(fitting, key=len)) - 1]
    if not _LABELS.fullmatch(bucket):  # a slash would make another bucket of it in the storage's path
        raise S3Error("InvalidBucketName")
    return bucket


def _check_bucket(bucket: str) -> None:
    if bucket in (".", ".."):
        raise S3Error("InvalidURI")
    if bucket in _NO_BUCKETS:
        raise S3Error(
            "AccessDenied", f"/{bucket} is where storages have their administration. Name the bucket otherwise."
        )


def _decode(text: bytes) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None
