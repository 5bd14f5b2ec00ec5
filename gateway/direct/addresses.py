"""The signed addresses of a direct upload, against the storage as clients see it. Does no I/O.

Each holds the client to what was agreed: key, kind, size, the metadata that prove where the object
came from, and for a PUT that nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from gateway.direct.schemas import PARTS_PER_PAGE
from gateway.s3.presigning import presign_url, sign_form
from gateway.s3.scope import Signer
from processors.photos import formats
from storage import uploads
from storage.settings import StorageSettings
from storage.uploads import Upload

UNKNOWN_TYPE: Final = "application/octet-stream"
_META: Final = f"x-amz-meta-{uploads.METADATA}"
_TYPES: Final = {item.extension: item.content_type for item in formats.FORMATS} | {
    "jpeg": formats.JPEG.content_type,
    "tiff": formats.TIFF.content_type,
}


class Addresses:
    """Signs for one upload."""

    def __init__(self, upload: Upload, storage: StorageSettings, *, max_bytes: int) -> None:
        self._upload = upload
        self._endpoint = storage.public_endpoint
        self._max_bytes = max_bytes
        self._signer = Signer(
            access_key=storage.s3_access_key, secret_key=storage.s3_secret_key, region=storage.s3_region
        )
        self._now = datetime.now(UTC)

    @property
    def seconds_left(self) -> int:
        return int((self._upload.expires_at - self._now).total_seconds())

    def describe(self) -> dict[str, Any]:
        """The members of the answer that say where to put the bytes; none where it is too late."""
        if self.seconds_left < 1 or self._upload.status != "open":
            return {}
        match self._upload.method:
            case "put":
                return self._put()
            case "post":
                return self._form()
            case _:
                return self.parts_after(0, PARTS_PER_PAGE)

    def parts_after(self, after: int, limit: int) -> dict[str, Any]:
        """The addresses of at most `limit` parts behind number `after`, and where the next page begins."""
        last = min(after + limit, self._upload.parts)
        return {
            "parts": self.parts(range(after + 1, last + 1)),
            "next_after": last if last < self._upload.parts else None,
        }

    def parts(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        assert self._upload.multipart_id is not None
        found = []
        for number in numbers:
            size_bytes = self._upload.size_of_part(number)
            query = {"partNumber": str(number), "uploadId": self._upload.multipart_id}
            url = self._presign({"content-length": str(size_bytes)}, query)
            found.append({"number": number, "size_bytes": size_bytes, "url": url})
        return found

    def _put(self) -> dict[str, Any]:
        headers = {
            "Content-Type": signed_type(self._upload.content_type, self._upload.filename, self._upload.key),
            "If-None-Match": "*",
            _META: str(self._upload.id),
        }
        # Signed, but not to be set by anybody: browsers refuse to, and every client sends it by itself.
        sized = {**headers, "content-length": str(self._upload.size_bytes)}
        return {"url": self._presign(sized, {}), "headers": headers}

    def _form(self) -> dict[str, Any]:
        size_bytes = self._upload.size_bytes
        fields = sign_form(
            {
                "key": self._upload.key,
                "Content-Type": signed_type(self._upload.content_type, self._upload.filename, self._upload.key),
                _META: str(self._upload.id),
                "success_action_status": "201",
            },
            [("content-length-range", size_bytes or 1, size_bytes or self._max_bytes)],
            bucket=self._upload.bucket,
            signer=self._signer,
            now=self._now,
            expires_at=self._upload.expires_at,
        )
        return {"url": f"{self._endpoint}/{self._upload.bucket}", "fields_": fields}

    def _presign(self, headers: dict[str, str], query: dict[str, str]) -> str:
        return presign_url(
            "PUT",
            (self._upload.bucket, self._upload.key),
            endpoint=self._endpoint,
            headers=headers,
            query=query,
            signer=self._signer,
            now=self._now,
            expires_seconds=self.seconds_left,
        )


def signed_type(content_type: str | None, filename: str | None, key: str) -> str:
    """The Content-Type that the storage keeps: what was promised, else what the name suggests, never what somebody
    sends, because the storage may serve it to browsers."""
    extension = (filename or key).rpartition(".")[2].lower()
    return content_type or _TYPES.get(extension, UNKNOWN_TYPE)
