"""Every S3 operation that this door knows, as one table: how it is asked for, its scope, what it does to objects.

What is not in the table is refused as NotImplemented, never passed on: a fall-through would run an operation under the
scope of another. A storage that does not know a sub-resource runs the plain operation in its place; therefore each has
the scope of that one at least. The module is long because the table is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from gateway.s3.errors import S3Error
from gateway.s3.request import RawRequest
from gateway.s3.targets import CopySource, Kind, Target, read_copy_source

Scope = Literal["read", "write", "admin"]


class Effect(Enum):
    """What success means for photos."""

    NONE = "none"
    STORES = "stores"
    REMOVES = "removes"


class Body(Enum):
    """What the request's body is."""

    NONE = "none"
    OBJECT = "object"
    XML = "xml"
    FORM = "form"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """`selector`: the query parameter that asks for it. `scope` None: needs no signature. `may_fail_late`: its 200 may
    still hold an <Error>. Copies also read their source, see `Asked.copy_source`."""

    name: str
    method: str
    kind: Kind
    selector: bytes = b""
    scope: Scope | None
    effect: Effect = Effect.NONE
    body: Body = Body.NONE
    is_copy: bool = False
    may_fail_late: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An operation with what else its authorisation must look at."""

    operation: Operation
    target: Target
    copy_source: CopySource | None


def _bucket(method: str, name: str, selector: bytes, scope: Scope, body: Body = Body.NONE) -> Operation:
    return Operation(name=name, method=method, kind="bucket", selector=selector, scope=scope, body=body)


def _object(
    method: str, name: str, selector: bytes, scope: Scope, *, body: Body = Body.NONE, effect: Effect = Effect.NONE
) -> Operation:
    return Operation(name=name, method=method, kind="object", selector=selector, scope=scope, body=body, effect=effect)


def _configuration(noun: str, selector: bytes, *, can_delete: bool, read_scope: Scope = "read") -> list[Operation]:
    removal = [_bucket("DELETE", f"DeleteBucket{noun}", selector, "admin")] if can_delete else []
    return [
        _bucket("GET", f"GetBucket{noun}", selector, read_scope),
        _bucket("PUT", f"PutBucket{noun}", selector, "admin", Body.XML),
        *removal,
    ]


LIST_BUCKETS = Operation(name="ListBuckets", method="GET", kind="service", scope="read")
GET_USAGE = Operation(name="GetUsage", method="GET", kind="service", selector=b"usage", scope="read")  # RGW's
LIST_OBJECTS_V2 = _bucket("GET", "ListObjectsV2", b"list-type", "read")
COPY_OBJECT = Operation(
    name="CopyObject",
    method="PUT",
    kind="object",
    scope="write",
    effect=Effect.STORES,
    is_copy=True,
    may_fail_late=True,
)
UPLOAD_PART_COPY = Operation(
    name="UploadPartCopy",
    method="PUT",
    kind="object",
    selector=b"uploadId",
    scope="write",
    is_copy=True,
    may_fail_late=True,
)
APPEND_OBJECT = _object("PUT", "AppendObject", b"append", "write", body=Body.OBJECT, effect=Effect.STORES)  # RGW's
POST_OBJECT = Operation(
    name="PostObject", method="POST", kind="bucket", scope="write", effect=Effect.STORES, body=Body.FORM
)
PREFLIGHT = Operation(name="Preflight", method="OPTIONS", kind="object", scope=None)

# Told apart by method, kind and selector alone. `classify` adds what headers and values decide.
_PLAIN: tuple[Operation, ...] = (
    LIST_BUCKETS,
    GET_USAGE,
    _bucket("PUT", "CreateBucket", b"", "admin", Body.XML),
    _bucket("DELETE", "DeleteBucket", b"", "admin"),
    _bucket("HEAD", "HeadBucket", b"", "read"),
    _bucket("GET", "ListObjects", b"", "read"),
    LIST_OBJECTS_V2,
    _bucket("GET", "ListObjectVersions", b"versions", "read"),
    _bucket("GET", "ListMultipartUploads", b"uploads", "read"),
    _bucket("GET", "GetBucketLocation", b"location", "read"),
    Operation(
        name="DeleteObjects",
        method="POST",
        kind="bucket",
        selector=b"delete",
        scope="write",
        effect=Effect.REMOVES,
        body=Body.XML,
    ),
    *_configuration("Accelerate", b"accelerate", can_delete=False),
    *_configuration("Acl", b"acl", can_delete=False),
    *_configuration("Analytics", b"analytics", can_delete=True),
    *_configuration("Cors", b"cors", can_delete=True),
    *_configuration("Encryption", b"encryption", can_delete=True),
    *_configuration("IntelligentTiering", b"intelligent-tiering", can_delete=True),
    *_configuration("Inventory", b"inventory", can_delete=True),
    *_configuration("Lifecycle", b"lifecycle", can_delete=True),
    *_configuration("Logging", b"logging", can_delete=False),
    *_configuration("Metrics", b"metrics", can_delete=True),
    *_configuration("Notification", b"notification", can_delete=True, read_scope="admin"),  # RGW can delete it
    *_configuration("ObjectLock", b"object-lock", can_delete=False),
    *_configuration("OwnershipControls", b"ownershipControls", can_delete=True),
    *_configuration("Policy", b"policy", can_delete=True, read_scope="admin"),
    *_configuration("PublicAccessBlock", b"publicAccessBlock", can_delete=True),
    *_configuration("Replication", b"replication", can_delete=True),
    *_configuration("RequestPayment", b"requestPayment", can_delete=False),
    *_configuration("Tagging", b"tagging", can_delete=True),
    *_configuration("Versioning", b"versioning", can_delete=False),
    *_configuration("Website", b"website", can_delete=True),
    _bucket("GET", "GetBucketPolicyStatus", b"policyStatus", "read"),
    _object("GET", "GetObject", b"", "read"),
    _object("HEAD", "HeadObject", b"", "read"),
    _object("PUT", "PutObject", b"", "write", body=Body.OBJECT, effect=Effect.STORES),
    _object("DELETE", "DeleteObject", b"", "write", effect=Effect.REMOVES),
    _object("GET", "GetObjectAttributes", b"attributes", "read"),
    _object("GET", "GetObjectTagging", b"tagging", "read"),
    _object("PUT", "PutObjectTagging", b"tagging", "write", body=Body.XML),
    _object("DELETE", "DeleteObjectTagging", b"tagging", "write"),
    _object("GET", "GetObjectAcl", b"acl", "read"),
    _object("PUT", "PutObjectAcl", b"acl", "admin", body=Body.XML),
    _object("GET", "GetObjectLegalHold", b"legal-hold", "read"),
    _object("PUT", "PutObjectLegalHold", b"legal-hold", "write", body=Body.XML),
    _object("GET", "GetObjectRetention", b"retention", "read"),
    _object("PUT", "PutObjectRetention", b"retention", "write", body=Body.XML),
    _object("GET", "GetObjectTorrent", b"torrent", "read"),
    _object("POST", "RestoreObject", b"restore", "write", body=Body.XML),
    _object("POST", "SelectObjectContent", b"select", "read", body=Body.XML),
    APPEND_OBJECT,
    _object("POST", "CreateMultipartUpload", b"uploads", "write"),
    _object("PUT", "UploadPart", b"uploadId", "write", body=Body.OBJECT),
    _object("GET", "ListParts", b"uploadId", "read"),
    _object("DELETE", "AbortMultipartUpload", b"uploadId", "write"),
    Operation(
        name="CompleteMultipartUpload",
        method="POST",
        kind="object",
        selector=b"uploadId",
        scope="write",
        effect=Effect.STORES,
        body=Body.XML,
        may_fail_late=True,
    ),
)
OPERATIONS: tuple[Operation, ...] = (*_PLAIN, COPY_OBJECT, UPLOAD_PART_COPY, POST_OBJECT, PREFLIGHT)

_BY_SHAPE = {(operation.method, operation.kind, operation.selector): operation for operation in _PLAIN}

# Sub-resources of S3 and its relatives that this door does not serve.
_NOT_SERVED = frozenset(
    b"abac defaultObjectAcl metadataConfiguration metadataInventoryTable metadataJournalTable metadataTable "
    b"renameObject session storageClass".split()
)
SELECTORS = frozenset(operation.selector for operation in _PLAIN) - {b"", b"list-type"} | _NOT_SERVED

# Parameters that refine an operation without choosing it.
_MODIFIERS = frozenset(
    b"allow-unordered bucket-region continuation-token delimiter encoding-type fetch-owner id key-marker list-type "
    b"marker max-buckets max-keys max-parts max-uploads metadata part-number-marker partNumber position prefix "
    b"select-type start-after upload-id-marker versionId version-id-marker x-id "
    b"AWSAccessKeyId Signature Expires content-type content-md5".split()
)


def classify(request: RawRequest, target: Target) -> Asked:
    """The operation that a request asks for. Raises S3Error NotImplemented, MethodNotAllowed, InvalidRequest,
    InvalidArgument."""
    if request.method == "OPTIONS":
        return Asked(operation=PREFLIGHT, target=target, copy_source=None)
    selector = _selector(request)
    operation = _BY_SHAPE.get((request.method, target.kind, selector)) or _by_content(request, target.kind, selector)
    if operation is None:
        what = f"{request.method} of {'an' if target.kind == 'object' else 'a'} {target.kind}"
        if selector:
            raise S3Error("NotImplemented", f"{what} with ?{selector.decode()} is not supported.")
        raise S3Error("MethodNotAllowed", f"{what} is not allowed.")
    if operation.method == "PUT" and target.kind == "object":
        _check_part(request, selector)
        source = read_copy_source(request)
        if source is not None:
            if selector not in (b"", b"uploadId"):
                raise S3Error("InvalidRequest", f"A copy with ?{selector.decode()} is not possible.")
            operation = UPLOAD_PART_COPY if selector else COPY_OBJECT
            return Asked(operation=operation, target=target, copy_source=source)
    if operation.name == "ListObjects" and request.parameter(b"list-type") == b"2":
        operation = LIST_OBJECTS_V2
    return Asked(operation=operation, target=target, copy_source=None)


def _by_content(request: RawRequest, kind: Kind, selector: bytes) -> Operation | None:
    content_type = (request.header(b"content-type") or b"").lower()
    if (request.method, kind, selector) == ("POST", "bucket", b"") and content_type.startswith(b"multipart/form-data"):
        return POST_OBJECT
    return None


def _selector(request: RawRequest) -> bytes:
    found = {pair.name for pair in request.pairs if pair.name in SELECTORS}
    if len(found) > 1:
        names = b", ".join(sorted(found)).decode("ascii")
        raise S3Error("InvalidRequest", f"These parameters exclude each other: {names}")
    for pair in request.pairs:
        if not _is_known(pair.name) and (request.method not in ("GET", "HEAD") or not pair.value):
            name = pair.name.decode("utf-8", "replace")
            raise S3Error("NotImplemented", f"The parameter {name} is not supported.", details={"ParameterName": name})
    return found.pop() if found else b""


def _is_known(name: bytes) -> bool:
    lower = name.lower()
    return name in SELECTORS or name in _MODIFIERS or lower.startswith((b"x-amz-", b"response-")) or lower in _MODIFIERS


def _check_part(request: RawRequest, selector: bytes) -> None:
    number = request.parameter(b"partNumber")
    if selector == b"uploadId" and (number is None or not number.isdigit() or not 1 <= int(number[:6]) <= 10_000):
        raise S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
    if not selector and number is not None:
        raise S3Error("InvalidArgument", "This operation does not accept a part number without an upload id.")
