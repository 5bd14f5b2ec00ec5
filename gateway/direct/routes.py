"""The addresses of direct uploads, rows of the table in gateway.routes."""

from __future__ import annotations

from gateway.direct import following, opening
from gateway.direct.schemas import (
    CompleteUploadBody,
    OpenedUploadSchema,
    OpenUploadBody,
    PartAddressesSchema,
    PartNumbersBody,
    UploadDetailSchema,
    UploadPageSchema,
    UploadsQuery,
)
from gateway.routing import Answer, Route
from gateway.schemas import PhotoDetailSchema, WaitQuery

_IDEMPOTENCY = {"Idempotency-Key": "Makes a retry safe: it is answered with the upload that the first try opened."}

ROUTES = (
    Route(
        method="POST",
        path="/v1/uploads",
        handler=opening.open_upload,
        scope="write",
        opens_to_limited=True,
        tag="uploads",
        summary="Open a direct upload",
        description="Answers signed addresses at which the storage itself takes the bytes; see docs/uploads.md.",
        body=OpenUploadBody,
        request_headers=_IDEMPOTENCY,
        answers={201: Answer("It is open: send the bytes to the address, then complete it.", OpenedUploadSchema)},
        problems=(400, 404, 409, 413, 415, 503),
    ),
    Route(
        method="GET",
        path="/v1/uploads",
        handler=following.list_uploads,
        scope="read",
        opens_to_limited=True,
        tag="uploads",
        summary="List direct uploads, newest first",
        query=UploadsQuery,
        answers={200: Answer("A page of uploads.", UploadPageSchema)},
        problems=(503,),
    ),
    Route(
        method="GET",
        path="/v1/uploads/{upload_id}",
        handler=following.get_upload,
        scope="read",
        opens_to_limited=True,
        tag="uploads",
        summary="One direct upload, and what became of it",
        answers={200: Answer("The upload.", UploadDetailSchema)},
        problems=(404, 503),
    ),
    Route(
        method="DELETE",
        path="/v1/uploads/{upload_id}",
        handler=following.abort_upload,
        scope="write",
        opens_to_limited=True,
        tag="uploads",
        summary="Abort a direct upload",
        description="What of it lies in the storage is deleted. A photo that is stored already is not.",
        answers={204: Answer("It is aborted.")},
        problems=(404, 409, 503),
    ),
    Route(
        method="POST",
        path="/v1/uploads/{upload_id}/parts",
        handler=following.sign_parts,
        scope="write",
        opens_to_limited=True,
        tag="uploads",
        summary="More addresses of a multipart upload's parts",
        body=PartNumbersBody,
        answers={200: Answer("The addresses.", PartAddressesSchema)},
        problems=(400, 404, 409, 503),
    ),
    Route(
        method="POST",
        path="/v1/uploads/{upload_id}/complete",
        handler=following.complete_upload,
        scope="write",
        opens_to_limited=True,
        tag="uploads",
        summary="Say that the bytes have arrived",
        description="May be repeated: the photo is the same. What is no photo is answered with the status `rejected`.",
        query=WaitQuery,
        body=CompleteUploadBody,
        answers={
            200: Answer("The photo, which was recorded before.", PhotoDetailSchema),
            201: Answer("The photo; its jobs are ready or done.", PhotoDetailSchema),
        },
        problems=(400, 404, 409, 503),
    ),
)
