"""The right requests that wrong ones are made of, one for each way in which objects are written, changed or removed.

Each is tried as it is, too: what is refused must be refused for what was changed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.integration.wrong_requests.framing import Frames, checksum, frame
from tests.integration.wrong_requests.signing import (
    SIGNED,
    SIGNED_TRAILER,
    UNSIGNED_TRAILER,
    Chain,
    Signature,
    sha256,
    sign_header,
)
from tests.integration.wrong_requests.wire import Draft

HASH = "hash"
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, kw_only=True)
class Multipart:
    """An upload that has begun. `etag`: of its first part, if it has one."""

    key: str
    upload_id: str
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class World:
    """What requests are made for. `who` may do everything; the others something less, or nothing.

    `writer` may not read, `narrow` reaches only what lies below new/mine/. `kept`: keys of objects that are there and
    must stay as they are. `large`: a photo that goes on in several pieces.
    """

    host: str
    bucket: str
    other_bucket: str
    derived: str
    who: Signature
    other: Signature
    reader: Signature
    elsewhere: Signature
    writer: Signature
    narrow: Signature
    revoked: Signature
    expired: Signature
    photo: bytes = field(repr=False)
    large: bytes = field(repr=False)
    source: str
    kept: tuple[str, ...]
    parts: Multipart
    finished: Multipart

    def path(self, key: str) -> str:
        return f"/{self.bucket}/{key}"

    def pick_key(self, rng: Random) -> str:
        """One that is there, or a new one."""
        return rng.choice(self.kept) if rng.random() < 0.4 else f"new/{rng.randrange(1 << 40):010x}.jpg"

    def pick_data(self, rng: Random) -> bytes:
        return self.large if rng.random() < 0.15 else self.photo


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`make`: the request for a key and data, not signed yet. `payload`: HASH, UNSIGNED or a STREAMING- mode."""

    name: str
    make: Callable[[World, str, bytes], Draft]
    payload: str = HASH
    writes: bool = True  # the key is one's own choice


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Signed, and framed where its mode says so."""

    draft: Draft
    chain: Chain
    frames: Frames | None

    def frame_anew(self) -> None:
        """After a change of the frames."""
        assert self.frames is not None
        self.draft.body = self.frames.render()


def seal(world: World, recipe: Recipe, draft: Draft, by: Signature, *, algorithm: str = "crc32") -> Sealed:
    """`algorithm`: of the trailer; an empty one: none is promised, and none comes."""
    mode = recipe.payload
    if mode in (HASH, UNSIGNED):
        payload = sha256(draft.body) if mode == HASH else mode
        return Sealed(draft=draft, chain=sign_header(draft, world.host, payload, by), frames=None)
    data, stated = draft.body, {name.lower() for name, _ in draft.headers}
    if "x-amz-decoded-content-length" not in stated:
        draft.headers.append(("x-amz-decoded-content-length", str(len(data))))
    draft.headers.append(("content-encoding", "aws-chunked"))
    if mode != SIGNED and algorithm and "x-amz-trailer" not in stated:
        draft.headers.append(("x-amz-trailer", f"x-amz-checksum-{algorithm}"))
    chain = sign_header(draft, world.host, mode, by)
    step = max(1, len(data) // 4)
    pieces = [data[start : start + step] for start in range(0, step * 4, step)]
    frames = frame([*pieces, data[step * 4 :]] if data[step * 4 :] else pieces, mode, chain, algorithm=algorithm)
    draft.body = frames.render()
    return Sealed(draft=draft, chain=chain, frames=frames)


def _put(world: World, key: str, data: bytes) -> Draft:
    headers = [("content-type", "image/jpeg"), ("x-amz-meta-a", "one")]
    return Draft(method="PUT", path=world.path(key), headers=headers, body=data)


def _put_unsigned(world: World, key: str, data: bytes) -> Draft:
    draft = _put(world, key, data)
    draft.headers.append(("content-md5", base64.b64encode(hashlib.md5(data).digest()).decode()))
    draft.headers.append(("x-amz-checksum-crc32", checksum("crc32", data)))
    return draft


def _part(world: World, _: str, data: bytes) -> Draft:
    query: list[tuple[str, str | None]] = [("partNumber", "1"), ("uploadId", world.parts.upload_id)]
    headers = [("x-amz-meta-a", "one")]
    return Draft(method="PUT", path=world.path(world.parts.key), query=query, headers=headers, body=data)


def _copy(world: World, key: str, _: bytes) -> Draft:
    headers = [("x-amz-copy-source", f"/{world.bucket}/{world.source}"), ("x-amz-meta-a", "one")]
    return Draft(method="PUT", path=world.path(key), headers=headers)


def _part_copy(world: World, _: str, __: bytes) -> Draft:
    draft = _part(world, "", b"")
    draft.headers.append(("x-amz-copy-source", f"/{world.bucket}/{world.source}"))
    return draft


def _complete(world: World, _: str, __: bytes) -> Draft:
    parts = f"<Part><PartNumber>1</PartNumber><ETag>{world.finished.etag}</ETag></Part>"
    return Draft(
        method="POST",
        path=world.path(world.finished.key),
        query=[("uploadId", world.finished.upload_id)],
        headers=[("content-type", "application/xml"), ("x-amz-meta-a", "one")],
        body=f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode(),
    )


def _delete(world: World, _: str, __: bytes) -> Draft:
    return Draft(method="DELETE", path=world.path(world.kept[0]), headers=[("x-amz-meta-a", "one")])


def _delete_many(world: World, _: str, __: bytes) -> Draft:
    keys = "".join(f"<Object><Key>{key}</Key></Object>" for key in world.kept)
    body = f"<Delete>{keys}</Delete>".encode()
    headers = [("content-md5", base64.b64encode(hashlib.md5(body).digest()).decode()), ("x-amz-meta-a", "one")]
    return Draft(method="POST", path=f"/{world.bucket}", query=[("delete", None)], headers=headers, body=body)


PUTS = (
    Recipe(name="put_hash", make=_put),
    Recipe(name="put_unsigned", make=_put_unsigned, payload=UNSIGNED),
    Recipe(name="put_chunks", make=_put, payload=SIGNED),
    Recipe(name="put_chunks_trailer", make=_put, payload=SIGNED_TRAILER),
    Recipe(name="put_unsigned_trailer", make=_put, payload=UNSIGNED_TRAILER),
)
PARTS = (
    Recipe(name="part", make=_part, writes=False),
    Recipe(name="part_chunks_trailer", make=_part, payload=SIGNED_TRAILER, writes=False),
)
COPY = Recipe(name="copy", make=_copy)
PART_COPY = Recipe(name="part_copy", make=_part_copy, writes=False)
COMPLETE = Recipe(name="complete", make=_complete, writes=False)
DELETE = Recipe(name="delete", make=_delete, writes=False)
DELETE_MANY = Recipe(name="delete_many", make=_delete_many, writes=False)
STORING = (*PUTS, COPY)
ALL = (*PUTS, *PARTS, COPY, PART_COPY, COMPLETE, DELETE, DELETE_MANY)
