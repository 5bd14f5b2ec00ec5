"""What the claims ask of every S3 client, and who cannot do what.

Bodies travel as files, so that a client may be a program, a library in another environment, or JavaScript.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypedDict


class ClientFailed(Exception):
    """A client reported an error; its own words."""


class Description(TypedDict):
    """What a client tells of an object. Names of metadata in lower case."""

    content_type: str
    metadata: dict[str, str]


class Client(Protocol):
    """One client, opened on one endpoint. Each method uses what its users use for that. Raises ClientFailed."""

    def put(
        self, bucket: str, key: str, path: Path, *, content_type: str = "", metadata: Mapping[str, str] | None = None
    ) -> None: ...

    def put_stream(self, bucket: str, key: str, path: Path) -> None:
        """The file's bytes from where their number is not known: a pipe or an iterator."""

    def get(self, bucket: str, key: str, path: Path) -> None: ...

    def get_range(self, bucket: str, key: str, path: Path, *, first: int, last: int) -> None:
        """Bytes first to last, both inclusive, into a file."""

    def list(self, bucket: str, prefix: str) -> list[str]:
        """The keys below a prefix that ends with a slash."""

    def delete(self, bucket: str, key: str) -> None: ...

    def describe(self, bucket: str, key: str) -> Description: ...

    def copy(self, bucket: str, source: str, target: str) -> None:
        """On the server, within a bucket."""

    def presign_get(self, bucket: str, key: str) -> str:
        """A URL for an hour, by the signature version that the client takes by itself."""

    def presign_put(self, bucket: str, key: str) -> str: ...

    def put_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        """Every file of a folder, 20 at once, under the prefix (which ends with a slash) and its relative path."""

    def get_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        """Everything under the prefix into a folder that exists, 20 at once."""

    def delete_tree(self, bucket: str, prefix: str) -> None:
        """Everything under the prefix, many keys in a request where the client does so."""

    def close(self) -> None: ...


# Claims that a client cannot be asked for, and why.
CANNOT: dict[tuple[str, str], str] = {
    ("aws-cli", "presigned_put"): "`aws s3 presign` makes URLs for GET only",
    ("rclone", "presigned_put"): "`rclone link` makes URLs for GET only",
    ("s3cmd", "presigned_put"): "`s3cmd signurl` makes URLs for GET only",
    ("s5cmd", "presigned_put"): "`s5cmd presign` makes URLs for GET only",
    ("s3cmd", "range_get"): "has no option for a range",
    ("s5cmd", "range_get"): "has no option for a range (it reads large objects by ranges: see multipart_100mb)",
    ("s5cmd", "copy_of_blanks"): "names a blank + in the copy source, which means a plus there",
    ("s3cmd", "twenty_parallel"): "sends one request at a time",
}

# Clients that are not tried on the storage itself, only by the door, and why.
NOT_ON_THE_STORAGE: dict[str, str] = {
    "aws-cli": "half a second for every call; and after an empty object SeaweedFS keeps it waiting for a minute",
    "s3cmd": "a quarter of a second for every call",
}

# Claims to which a client is held by plain http; to the others by TLS alone.
BY_HTTP: dict[str, tuple[str, ...]] = {
    # Half a second for every call; boto3, whose code does the work below it, is held to all of them.
    "aws-cli": ("put_get_list_delete", "streaming_body", "twenty_parallel", "presigned_get"),
}

# Claims of a client that the storage behind the door does not fulfil by itself, and why.
ONLY_BY_THE_DOOR: dict[tuple[str, str], str] = {
    ("aws-sdk-js", "presigned_put"): "the client signs the checksum of an empty body, which SeaweedFS wants to see",
} | dict.fromkeys(
    (
        ("boto3", "presigned_get"),
        ("boto3", "presigned_put"),
        ("aioboto3", "presigned_get"),
        ("aioboto3", "presigned_put"),
        ("s3fs", "presigned_get"),
        ("s3fs", "presigned_put"),
    ),
    "the client presigns by signature version 2, which SeaweedFS does not offer",
)
