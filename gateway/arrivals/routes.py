"""The addresses of bucket events, rows of the table in gateway.routes."""

from __future__ import annotations

from gateway.arrivals import receiving
from gateway.arrivals.schemas import UnusableMessagesSchema
from gateway.routing import Answer, Route

ROUTES = (
    Route(
        method="POST",
        path="/hooks/bucket-events",
        handler=receiving.post_bucket_event,
        scope=None,
        own_scheme="hook",
        tag="bucket events",
        summary="Take what a storage tells of its objects",
        description="For MinIO, Ceph RGW, RustFS, SeaweedFS, EventBridge and SNS. Needs `Authorization: Bearer "
        "<SAFELIGHT_HOOK_TOKEN>` or `?token=`; or, in Ceph's records, the token as opaqueData; or SNS' signature.",
        raw_body={"application/json": {"schema": {}}, "text/plain": {"schema": {"type": "string"}}},
        answers={200: Answer("Everything that it tells is committed, or it is of no use to us.", content_types=())},
        problems=(401, 404, 408, 503),
    ),
    Route(
        method="GET",
        path="/v1/bucket-events/unusable",
        handler=receiving.list_unusable,
        scope="admin",
        tag="bucket events",
        summary="Messages of storages that could not be used",
        description="The newest of each kind, newest first.",
        answers={200: Answer("The samples.", UnusableMessagesSchema)},
        problems=(503,),
    ),
)
