"""What `safelight setup bucket` sets on a bucket, one step after the other, and what became of each.

Rules of others are kept: ours are told by their ids. Safe to repeat; a dry run only looks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.blobs import BlobRefused
from storage.buckets import Buckets

Kind = Literal["minio", "rustfs", "ceph", "aws", "seaweedfs", "other"]
Result = Literal["there", "made", "changed", "would be made", "would be changed", "not supported", "refused", "by hand"]

RULE_ID = "safelight"
# Named one by one: MinIO's ObjectCreated:* has tags, retention and legal holds among it.
CREATED = tuple(f"s3:ObjectCreated:{name}" for name in ("Put", "Post", "Copy", "CompleteMultipartUpload"))
REMOVED = ("s3:ObjectRemoved:Delete", "s3:ObjectRemoved:DeleteMarkerCreated")
_MINIO_ARN = "arn:minio:sqs::1:webhook"  # the target that MINIO_NOTIFY_WEBHOOK_ENABLE_1 switches on
_RUSTFS_ARN = "arn:rustfs:sqs:us-east-1:1:webhook"
_LISTS = {"sqs": ("QueueConfigurations", "QueueArn"), "sns": ("TopicConfigurations", "TopicArn")}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked for. `arn`: where events go; None: what is usual for the storage. `url`, `token`: of the
    gateway's hook, for a storage that is told where to push."""

    bucket: str
    derived_bucket: str
    kind: Kind
    arn: str | None = None
    url: str | None = None
    token: str | None = None
    queued: bool = True
    removals: bool = True
    prefix: str = ""
    origins: Sequence[str] = ()
    days: int = 7
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    what: str
    result: Result
    detail: str = ""
    is_needed: bool = True  # photos do not arrive without it

    @property
    def is_done(self) -> bool:
        return self.result not in ("refused", "by hand") or not self.is_needed


def recognise(headers: Mapping[str, str]) -> Kind:
    """What kind of storage answers like this."""
    server = headers.get("server", "").lower()
    for name, kind in (("minio", "minio"), ("rustfs", "rustfs"), ("seaweedfs", "seaweedfs"), ("amazons3", "aws")):
        if name in server:
            return kind  # type: ignore[return-value]
    return "ceph" if headers.get("x-amz-request-id", "").startswith("tx0") else "other"


async def set_up(buckets: Buckets, wish: Wish) -> list[Step]:
    """Do it, or say what would be done. Raises BlobsUnavailable."""
    steps = [await _make_bucket(buckets, name, wish) for name in (wish.bucket, wish.derived_bucket)]
    exists = {step.what: step.result in ("there", "made") for step in steps}
    steps += [
        await _end_dangling(buckets, name, wish, exists=exists[f"bucket {name}"])
        for name in (wish.bucket, wish.derived_bucket)
    ]
    if wish.origins:
        steps.append(await _open_to_browsers(buckets, wish, exists=exists[f"bucket {wish.bucket}"]))
    steps.append(await _notify(buckets, wish, exists=exists[f"bucket {wish.bucket}"]))
    return steps


async def _make_bucket(buckets: Buckets, name: str, wish: Wish) -> Step:
    what = f"bucket {name}"
    try:
        if await buckets.exists(name):
            return Step(what=what, result="there")
        if wish.dry_run:
            return Step(what=what, result="would be made")
        await buckets.make(name)
    except BlobRefused as error:
        return Step(what=what, result="refused", detail=f"The storage answers {error.code}.")
    return Step(what=what, result="made")


async def _end_dangling(buckets: Buckets, name: str, wish: Wish, *, exists: bool) -> Step:
    rule = {
        "ID": f"{RULE_ID}-dangling-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": wish.days},
    }

    async def store(rules: Sequence[Mapping[str, Any]]) -> None:
        await buckets.set_lifecycle(name, rules)

    step = await _merge(
        f"lifecycle of {name}", rule, wish, get=lambda: buckets.lifecycle(name), store=store, exists=exists
    )
    if step.result == "not supported" and wish.kind == "minio":
        return Step(what=step.what, result="there", detail="MinIO ends such uploads after a day by itself.")
    return step


async def _open_to_browsers(buckets: Buckets, wish: Wish, *, exists: bool) -> Step:
    rule = {
        "ID": f"{RULE_ID}-browser-uploads",
        "AllowedOrigins": list(wish.origins),
        "AllowedMethods": ["PUT", "POST", "GET", "HEAD"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],  # of its parts: without them no multipart upload can be completed
        "MaxAgeSeconds": 3600,
    }

    async def store(rules: Sequence[Mapping[str, Any]]) -> None:
        await buckets.set_cors(wish.bucket, rules)

    step = await _merge(
        f"CORS of {wish.bucket}", rule, wish, get=lambda: buckets.cors(wish.bucket), store=store, exists=exists
    )
    if step.result == "not supported" and wish.kind == "minio":
        detail = "MinIO knows one list for all buckets: MINIO_API_CORS_ALLOW_ORIGIN."
        return Step(what=step.what, result="by hand", detail=detail, is_needed=False)
    return step


async def _merge(
    what: str,
    rule: dict[str, Any],
    wish: Wish,
    *,
    get: Callable[[], Awaitable[list[dict[str, Any]]]],
    store: Callable[[Sequence[Mapping[str, Any]]], Awaitable[None]],
    exists: bool,
) -> Step:
    """Put our rule among those of others, which stay as they are."""
    try:
        rules = await get() if exists else []
        before = next((item for item in rules if item.get("ID") == rule["ID"]), None)
        if before is not None and _says(before, rule):
            return Step(what=what, result="there")
        if wish.dry_run:
            return Step(what=what, result="would be changed" if before else "would be made")
        await store([*(item for item in rules if item.get("ID") != rule["ID"]), rule])
    except BlobRefused as error:
        return Step(what=what, result="not supported", detail=f"The storage answers {error.code}.", is_needed=False)
    return Step(what=what, result="changed" if before else "made")


def _says(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a storage's own writing of a rule means ours: some write an empty filter as a prefix, or as none."""
    left = {name: value for name, value in found.items() if name not in ("Filter", "Prefix")}
    right = {name: value for name, value in wanted.items() if name != "Filter"}
    return left == right and (found.get("Filter") or {}).get("Prefix", found.get("Prefix", "")) == ""


async def _notify(buckets: Buckets, wish: Wish, *, exists: bool) -> Step:
    what = f"events of {wish.bucket}"
    try:
        arn = await _choose_arn(buckets, wish)
        if arn is None:
            return Step(what=what, result="by hand", detail=by_hand(wish))
        before = await buckets.notification(wish.bucket) if exists else {}
        wanted = merge_notification(before, arn, events=events_of(wish), prefix=wish.prefix)
        if notification_of(before) == notification_of(wanted):
            return Step(what=what, result="there", detail=arn)
        is_new = notification_of(before) is None
        if wish.dry_run:
            return Step(what=what, result="would be made" if is_new else "would be changed", detail=arn)
        await buckets.set_notification(wish.bucket, wanted)
    except BlobRefused as error:
        return Step(what=what, result="refused", detail=f"The storage answers {error.code}. {_hint(wish.kind)}".strip())
    return Step(what=what, result="made" if is_new else "changed", detail=arn)


async def _choose_arn(buckets: Buckets, wish: Wish) -> str | None:
    """Where events go; None where that can only be set by hand."""
    if wish.arn is not None:
        return wish.arn
    if wish.kind == "minio":
        return _MINIO_ARN
    if wish.kind == "rustfs":
        return _RUSTFS_ARN
    if wish.kind == "ceph" and wish.url and wish.token:
        attributes = {
            "push-endpoint": wish.url,
            "OpaqueData": wish.token,
            "persistent": "true" if wish.queued else "false",
        }
        topic = topic_of(wish.bucket)
        return f"arn:aws:sns:default::{topic}" if wish.dry_run else await buckets.make_topic(topic, attributes)
    return None


def topic_of(bucket: str) -> str:
    """A bucket's own topic: one by the same name for all would send every bucket's events, of any Safelight that shares
    the Ceph, to the hook that was named last."""
    return f"{RULE_ID}-{bucket.replace('.', '_')}"


def events_of(wish: Wish) -> tuple[str, ...]:
    return (*CREATED, *REMOVED) if wish.removals else CREATED


def merge_notification(
    document: Mapping[str, Any], arn: str, *, events: Sequence[str], prefix: str = ""
) -> dict[str, Any]:
    """The document with our notification in it, those of others as they were. Raises ValueError for an ARN that events
    cannot go to."""
    kept = {
        name: [item for item in value if item.get("Id") != RULE_ID] if isinstance(value, list) else value
        for name, value in document.items()
    }
    if arn == "eventbridge":
        return {name: value for name, value in kept.items() if value != []} | {"EventBridgeConfiguration": {}}
    parts = arn.split(":")
    if len(parts) < 6 or parts[0] != "arn" or parts[2] not in _LISTS:
        raise ValueError("an ARN of a queue or a topic begins like arn:aws:sqs:... or arn:aws:sns:...")
    list_name, arn_name = _LISTS[parts[2]]
    ours: dict[str, Any] = {"Id": RULE_ID, arn_name: arn, "Events": list(events)}
    if prefix:
        ours["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
    kept[list_name] = [*kept.get(list_name, []), ours]
    return {name: value for name, value in kept.items() if value != []}


def notification_of(document: Mapping[str, Any]) -> tuple[str, frozenset[str], str] | None:
    """Ours in a document, as (arn, events, prefix), however the storage writes it; None where there is none."""
    for list_name, arn_name in _LISTS.values():
        for item in document.get(list_name, []):
            if item.get("Id") == RULE_ID:
                rules = item.get("Filter", {}).get("Key", {}).get("FilterRules", [])
                prefix = next((rule["Value"] for rule in rules if rule["Name"].lower() == "prefix"), "")
                return item[arn_name], frozenset(item["Events"]), prefix
    return ("eventbridge", frozenset(), "") if "EventBridgeConfiguration" in document else None


def by_hand(wish: Wish) -> str:
    """What to do where the S3 protocol cannot do it."""
    url = wish.url or "http://GATEWAY:8080/hooks/bucket-events"
    if wish.kind == "seaweedfs":
        from safelight.embedded.seaweedfs import webhook_notification

        text = webhook_notification(url, "THE TOKEN IN SAFELIGHT_HOOK_TOKEN")
        return f"SeaweedFS pushes by its filer. Put this into the filer's notification.toml and restart it:\n{text}"
    if wish.kind == "ceph":
        return "Give --url, the address of a gateway's hook as Ceph sees it, and SAFELIGHT_HOOK_TOKEN."
    if wish.kind == "aws":
        return (
            "Give --arn: of an SQS queue (read by `safelight events --source sqs`), of an SNS topic (subscribed to "
            f"{url} and named in SAFELIGHT_HOOK_SNS_TOPICS), or the word eventbridge."
        )
    return f"Have the storage POST its events to {url} with the header Authorization: Bearer <SAFELIGHT_HOOK_TOKEN>."


def _hint(kind: Kind) -> str:
    if kind in ("minio", "rustfs"):
        return (
            "Is the webhook target switched on (MINIO_NOTIFY_WEBHOOK_ENABLE_1, minio/README.md)? May this key set "
            "notifications?"
        )
    return "May this key set notifications, and may the bucket send to that ARN?"
