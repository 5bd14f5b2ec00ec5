"""One table: what went wrong -> HTTP status and stable code, rendered as problem+json (RFC 9457).

Clients key on `code`; codes are never renamed. An unknown exception is logged with an id and answered with that id
alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

import structlog
from aiohttp import web

from storage.blobs import BlobChanged, BlobRefused, BlobsUnavailable, NoSuchBlob, NoSuchBucket
from storage.database import DatabaseUnavailable
from storage.memory import MemoryBusy

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 2

# code -> (status, title). The detail of each answer says what to do.
PROBLEMS: dict[str, tuple[int, str]] = {
    "invalid_request": (422, "The request's parameters are not valid."),
    "invalid_json": (400, "The body is not valid JSON."),
    "invalid_key": (400, "This bucket or key cannot be stored."),
    "invalid_form": (400, "The form cannot be read."),
    "not_a_form": (415, "The body is not multipart/form-data."),
    "no_files": (400, "The form holds no file."),
    "too_many_files": (413, "The form holds too many files."),
    "body_cut_short": (400, "The body ended before it was complete."),
    "body_timeout": (408, "The body did not arrive in time."),
    "too_large": (413, "The photo is too large."),
    "encoding_not_supported": (415, "Compressed bodies are not accepted."),
    "not_an_image": (415, "The body is not an image."),
    "unsupported_format": (415, "Images of this kind are not accepted."),
    "empty": (415, "The body is empty."),
    "unauthorized": (401, "A valid key is needed."),
    "forbidden": (403, "This key may not do that."),
    "csrf_refused": (403, "The request does not prove that it comes from our own pages."),
    "too_many_sign_ins": (429, "Too many sign-ins failed."),
    "derived_bucket_is_read_only": (403, "Only Safelight writes to the bucket of derived objects."),
    "no_such_bucket": (404, "There is no such bucket."),
    "no_such_photo": (404, "There is no such photo."),
    "no_such_preview": (404, "The photo has no such preview."),
    "no_such_job": (404, "There is no such job."),
    "no_such_processor": (404, "There is no such processor."),
    "no_such_webhook": (404, "There is no such webhook."),
    "no_such_delivery": (404, "The webhook has no such delivery."),
    "no_facts": (404, "The photo has no such facts."),
    "original_missing": (404, "The original is no longer in the storage."),
    "photo_superseded": (410, "Another photo was stored under the same key since."),
    "range_not_satisfiable": (416, "The range lies outside of the object."),
    "job_not_waiting": (409, "Only waiting jobs can be discarded so, and only those for later run now."),
    "job_not_dead": (409, "Only dead jobs can be replayed or discarded."),
    "too_many_webhooks": (409, "There are as many webhooks as are allowed."),
    "delivery_not_finished": (409, "Only what is delivered, dead or discarded can be delivered again."),
    "delivery_not_discardable": (409, "This delivery cannot be discarded."),
    "idempotency_in_progress": (409, "A request with this Idempotency-Key is under way."),
    "idempotency_key_reused": (422, "This Idempotency-Key was used for another request."),
    "no_such_upload": (404, "There is no such direct upload."),
    "upload_not_arrived": (409, "The storage has nothing of this upload."),
    "upload_incomplete": (409, "Not every part of this upload arrived."),
    "upload_not_open": (409, "This upload takes no more bytes."),
    "upload_stored": (409, "This upload is a photo already."),
    "key_taken": (409, "Something else lies under this key."),
    "too_many_open_uploads": (429, "This key has too many direct uploads open."),
    "not_found": (404, "There is nothing at this address."),
    "method_not_allowed": (405, "This address does not know the method."),
    "bad_request": (400, "The request cannot be understood."),
    "refused_by_storage": (400, "The storage refuses this object."),
    "no_master_key": (503, "Secrets cannot be sealed here."),
    "database_unavailable": (503, "Postgres cannot be used at the moment."),
    "storage_unavailable": (503, "The storage cannot be used at the moment."),
    "events_unavailable": (503, "Bucket events cannot be taken at the moment."),
    "too_many_uploads": (429, "Too many uploads are in flight."),
    "too_many_requests": (429, "This key asks too often."),
    "too_many_streams": (429, "Too many event streams are open."),
    "events_gone": (410, "Events were missed."),
    "internal": (500, "Something failed that should not have."),
}


class Problem(Exception):
    """An error meant for the client."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def status(self) -> int:
        return PROBLEMS[self.code][0]

    def as_json(self) -> dict[str, Any]:
        status, title = PROBLEMS[self.code]
        return {
            "type": f"urn:safelight:error:{self.code}",
            "title": title,
            "status": status,
            "code": self.code,
            "detail": self.detail,
            **self.members,
        }


def translate(error: Exception) -> Problem:
    """The problem that an exception is shown as; `internal` for those that nobody foresaw."""
    again = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    match error:
        case Problem():
            return error
        case DatabaseUnavailable():
            return Problem("database_unavailable", "Nothing was accepted. Send it again in a moment.", headers=again)
        case BlobsUnavailable():
            return Problem("storage_unavailable", "Nothing was accepted. Send it again in a moment.", headers=again)
        case MemoryBusy():
            return Problem("too_many_uploads", "Nothing was accepted. Send it again in a moment.", headers=again)
        case NoSuchBucket():
            return Problem("no_such_bucket", "Create the bucket in the storage, or name one that exists.")
        case NoSuchBlob() | BlobChanged():
            return Problem("original_missing", "It was deleted or replaced in the storage behind Safelight's back.")
        case BlobRefused():
            return Problem("refused_by_storage", f"It answers {error.code}.", storage_code=error.code)
        case web.HTTPNotFound():
            return Problem("not_found", "See /docs for the addresses that exist.")
        case web.HTTPMethodNotAllowed():
            return Problem(
                "method_not_allowed",
                f"It knows {', '.join(sorted(error.allowed_methods))}.",
                headers={"Allow": ", ".join(sorted(error.allowed_methods))},
            )
        case web.HTTPRequestEntityTooLarge():
            return Problem("too_large", "Send a smaller body.")
        case web.HTTPClientError():
            return Problem("bad_request", "See /docs for how requests look.")
        case _:
            error_id = secrets.token_hex(8)
            log.error("request.failed", message="A request failed unexpectedly.", error_id=error_id, exc_info=error)
            return Problem("internal", f"It is logged under the id {error_id}.", error_id=error_id)


def render(problem: Problem) -> web.Response:
    return web.Response(
        status=problem.status,
        body=json.dumps(problem.as_json(), ensure_ascii=False).encode("utf-8", "replace"),
        content_type="application/problem+json",
        headers=problem.headers,
    )
