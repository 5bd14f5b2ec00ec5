"""Every address of the REST door, as one table. Router, scopes, validation and /openapi.json are made of it."""

from __future__ import annotations

from gateway import catalog, health, metrics, queue, uploads
from gateway.routing import Answer, Route
from gateway.schemas import (
    ExifSchema,
    FormQuery,
    HealthSchema,
    JobActionBody,
    JobActionSchema,
    JobDetailSchema,
    JobPageSchema,
    JobsQuery,
    NoteBody,
    PhotoDetailSchema,
    PhotoPageSchema,
    PhotosQuery,
    ReadinessSchema,
    StatsSchema,
    UploadedSchema,
    WaitQuery,
)
from processors.photos.formats import FORMATS

_BYTES = {"type": "string", "format": "binary"}
_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "array", "items": _BYTES, "minItems": 1}},
            "required": ["file"],
        }
    }
}
_PHOTO_TYPES = tuple(item.content_type for item in FORMATS)
_RAW = {"application/octet-stream": {"schema": _BYTES}}
_IDEMPOTENCY = {
    "Idempotency-Key": "Makes a retry safe: a request that was finished is answered again, with its first photos."
}
_CONDITIONS = {
    "Range": "One range, as in bytes=0-1023.",
    "If-None-Match": "ETag of the copy that is at hand.",
}
_TAG = {"ETag": "Of these bytes; stays while they do."}
_UPLOAD_PROBLEMS = (400, 403, 404, 408, 409, 413, 415, 503)

ROUTES = (
    Route(
        method="POST",
        path="/v1/photos",
        handler=uploads.post_photos,
        scope="write",
        tag="photos",
        summary="Upload photos as a form",
        description="Every file of the form becomes a photo. Keys are made for them.",
        query=FormQuery,
        raw_body=_FORM,
        request_headers=_IDEMPOTENCY,
        answers={
            201: Answer("All files are stored; their jobs are ready or done.", UploadedSchema),
            207: Answer("Some files are stored; `errors` says why the others are not.", UploadedSchema),
        },
        problems=_UPLOAD_PROBLEMS,
    ),
    Route(
        method="PUT",
        path="/v1/photos/{bucket}/{key:(?s:.+)}",
        handler=uploads.put_photo,
        scope="write",
        tag="photos",
        summary="Upload one photo under a key of your own",
        description="The body is the photo. What was under the key before is replaced, as in S3.",
        query=WaitQuery,
        raw_body=_RAW,
        request_headers=_IDEMPOTENCY,
        answers={201: Answer("The photo is stored; its jobs are ready or done.", PhotoDetailSchema)},
        problems=_UPLOAD_PROBLEMS,
    ),
    Route(
        method="GET",
        path="/v1/photos",
        handler=catalog.list_photos,
        scope="read",
        tag="photos",
        summary="List photos, newest first",
        query=PhotosQuery,
        answers={200: Answer("A page of photos.", PhotoPageSchema)},
        problems=(503,),
    ),
    Route(
        method="GET",
        path="/v1/photos/{photo_id}",
        handler=catalog.get_photo,
        scope="read",
        tag="photos",
        summary="One photo: object, previews, facts, jobs",
        answers={200: Answer("The photo.", PhotoDetailSchema)},
        problems=(404, 503),
    ),
    Route(
        method="DELETE",
        path="/v1/photos/{photo_id}",
        handler=catalog.delete_photo,
        scope="write",
        tag="photos",
        summary="Delete a photo and its previews",
        answers={204: Answer("It is gone.")},
        problems=(404, 410, 503),
    ),
    Route(
        method="GET",
        path="/v1/photos/{photo_id}/exif",
        handler=catalog.get_exif,
        scope="read",
        tag="photos",
        summary="The facts that its EXIF holds",
        answers={200: Answer("Normalized facts, and every tag under `raw`.", ExifSchema)},
        problems=(404, 503),
    ),
    Route(
        method="GET",
        path="/v1/photos/{photo_id}/previews/{preset}",
        handler=catalog.get_preview,
        scope="read",
        tag="photos",
        summary="The bytes of a preview",
        request_headers=_CONDITIONS,
        answers={
            200: Answer("The preview.", content_types=("image/webp", "image/jpeg"), headers=_TAG),
            206: Answer("The range of it.", content_types=("image/webp", "image/jpeg"), headers=_TAG),
            304: Answer("The copy at hand is good.", headers=_TAG),
        },
        problems=(404, 410, 416, 503),
    ),
    Route(
        method="GET",
        path="/v1/photos/{photo_id}/original",
        handler=catalog.get_original,
        scope="read",
        tag="photos",
        summary="The bytes of the original",
        request_headers=_CONDITIONS,
        answers={
            200: Answer("The original, as an attachment.", content_types=_PHOTO_TYPES, headers=_TAG),
            206: Answer("The range of it.", content_types=_PHOTO_TYPES, headers=_TAG),
            304: Answer("The copy at hand is good.", headers=_TAG),
        },
        problems=(404, 410, 416, 503),
    ),
    Route(
        method="GET",
        path="/v1/stats",
        handler=queue.get_stats,
        scope="read",
        tag="queue",
        summary="How the queue does",
        answers={200: Answer("Counts, ages, rates, run times and workers.", StatsSchema)},
        problems=(503,),
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=metrics.get_metrics,
        scope="read",
        tag="queue",
        summary="Metrics for Prometheus",
        answers={200: Answer("Prometheus' text format.", content_types=("text/plain",))},
        problems=(503,),
    ),
    Route(
        method="GET",
        path="/v1/jobs",
        handler=queue.list_jobs,
        scope="read",
        tag="queue",
        summary="List jobs, newest first",
        description="`state=dead` lists the dead letters.",
        query=JobsQuery,
        answers={200: Answer("A page of jobs.", JobPageSchema)},
        problems=(503,),
    ),
    Route(
        method="POST",
        path="/v1/jobs/replay",
        handler=queue.replay_jobs,
        scope="admin",
        tag="queue",
        summary="Replay dead jobs by filter",
        body=JobActionBody,
        answers={200: Answer("What matched, and what was made ready.", JobActionSchema)},
        problems=(400, 503),
    ),
    Route(
        method="POST",
        path="/v1/jobs/discard",
        handler=queue.discard_jobs,
        scope="admin",
        tag="queue",
        summary="Discard dead jobs by filter",
        body=JobActionBody,
        answers={200: Answer("What matched, and what was discarded.", JobActionSchema)},
        problems=(400, 503),
    ),
    Route(
        method="GET",
        path="/v1/jobs/{job_id:[0-9]+}",
        handler=queue.get_job,
        scope="read",
        tag="queue",
        summary="One job with every attempt",
        answers={200: Answer("The job.", JobDetailSchema)},
        problems=(404, 503),
    ),
    Route(
        method="POST",
        path="/v1/jobs/{job_id:[0-9]+}/replay",
        handler=queue.replay_job,
        scope="admin",
        tag="queue",
        summary="Replay a dead job",
        body=NoteBody,
        answers={200: Answer("The job, ready again.", JobDetailSchema)},
        problems=(400, 404, 409, 503),
    ),
    Route(
        method="POST",
        path="/v1/jobs/{job_id:[0-9]+}/discard",
        handler=queue.discard_job,
        scope="admin",
        tag="queue",
        summary="Discard a dead job",
        body=NoteBody,
        answers={200: Answer("The job, discarded.", JobDetailSchema)},
        problems=(400, 404, 409, 503),
    ),
    Route(
        method="GET",
        path="/healthz",
        handler=health.get_healthz,
        scope=None,
        tag="health",
        summary="Is the process alive?",
        answers={200: Answer("It is.", HealthSchema)},
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=health.get_readyz,
        scope=None,
        tag="health",
        summary="Can photos be taken?",
        answers={
            200: Answer("They can.", ReadinessSchema),
            503: Answer("They cannot; `dependencies` says what is missing.", ReadinessSchema),
        },
    ),
)
