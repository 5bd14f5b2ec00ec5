"""Sending files: what is sent under which key, many at a time, each tried again until it is stored.

A retry carries the Idempotency-Key of its file, so a photo whose answer was lost is not stored twice.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from processors.photos import formats
from safelight.remote import Gateway, Refused, Unreachable, photo_path

_PIECE_BYTES = 256 << 10


class Meter(Protocol):
    """Who is told how far each file is."""

    def begin(self, wish: Wish) -> None: ...

    def sent(self, wish: Wish, sent_bytes: int) -> None: ...

    def end(self, wish: Wish, _result: Result, /) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A file that is to be stored under a key."""

    path: Path
    key: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a file: `photo` as the gateway shows it, or the code and sentence of why not."""

    wish: Wish
    photo: dict[str, Any] | None = None
    code: str | None = None
    detail: str | None = None
    seconds: float = 0

    @property
    def failed(self) -> bool:
        return self.code is not None


@dataclass(frozen=True, kw_only=True)
class Planned:
    wishes: list[Wish]
    left_out: list[Path] = field(default_factory=list)  # files in folders that are no photos


class CannotPlan(Exception):
    """Nothing is sent. The message says why, and what to do."""


def plan(paths: Sequence[Path], *, prefix: str) -> Planned:
    """Keys for files and for everything in folders: the prefix, then the path from the named folder's parent on. In
    folders only what begins like a photo is taken. Raises CannotPlan."""
    wishes, left_out = [], []
    for named in paths:
        if not named.exists():
            raise CannotPlan(f"There is no file or folder {named}.")
        for path in _walk(named) if named.is_dir() else [named]:
            if named.is_dir() and not _is_photo(path):
                left_out.append(path)
                continue
            name = path.relative_to(named.resolve().parent) if named.is_dir() else Path(path.name)
            wishes.append(Wish(path=path, key=prefix + name.as_posix(), size_bytes=path.stat().st_size))
    twice = [key for key, times in Counter(wish.key for wish in wishes).items() if times > 1]
    if twice:
        files = " and ".join(str(wish.path) for wish in wishes if wish.key == twice[0])
        raise CannotPlan(
            f"{files} would get the same key, {twice[0]}. Name the folder that holds them, or send them one after the "
            "other with a --prefix of their own."
        )
    return Planned(wishes=wishes, left_out=left_out)


async def send_all(
    gateway: Gateway, wishes: Iterable[Wish], *, bucket: str, parallel: int, wait_seconds: float | None, meter: Meter
) -> list[Result]:
    """Send everything, `parallel` at a time; `wait_seconds`: then wait for each photo's jobs, that long at most. Never
    raises for a single file. In the order of the wishes."""
    results: dict[Wish, Result] = {}
    waiting = list(reversed(wished := list(wishes)))

    async def work() -> None:
        while waiting:
            wish = waiting.pop()
            meter.begin(wish)
            results[wish] = await _send(gateway, wish, bucket, wait_seconds, meter)
            meter.end(wish, results[wish])

    async with asyncio.TaskGroup() as group:
        for _ in range(min(parallel, len(wished))):
            group.create_task(work())
    return [results[wish] for wish in wished]


async def _send(gateway: Gateway, wish: Wish, bucket: str, wait_seconds: float | None, meter: Meter) -> Result:
    begun = time.monotonic()
    headers = {"Idempotency-Key": f"put-{uuid.uuid4().hex}", "Content-Length": str(wish.size_bytes)}
    photo: dict[str, Any] | None = None
    try:
        await asyncio.to_thread(_check_readable, wish.path)
        photo = await gateway.ask("PUT", photo_path(bucket, wish.key), headers=headers, body=lambda: _read(wish, meter))
        if wait_seconds is not None and photo is not None:
            photo = await _settle(gateway, photo, wait_seconds)
    except Refused as refused:
        return Result(wish=wish, photo=photo, code=refused.code, detail=str(refused))
    except Unreachable as error:
        return Result(wish=wish, photo=photo, code="unreachable", detail=f"The gateway does not answer: {error}.")
    except OSError as error:
        return Result(wish=wish, code="unreadable", detail=f"The file cannot be read: {error.strerror or error}.")
    seconds = time.monotonic() - begun
    code, detail = _judge(photo, wait_seconds) if wait_seconds is not None and photo is not None else (None, None)
    return Result(wish=wish, photo=photo, code=code, detail=detail, seconds=seconds)


async def _settle(gateway: Gateway, photo: dict[str, Any], wait_seconds: float) -> dict[str, Any]:
    """The photo once nothing of it is to do any more, or when the time is over."""
    deadline = time.monotonic() + wait_seconds
    while photo["settled_at"] is None and (left := deadline - time.monotonic()) > 0:
        asked_at = time.monotonic()
        photo = await gateway.get(f"/v1/photos/{photo['id']}", {"wait": f"{min(20.0, left):.1f}"})
        if time.monotonic() - asked_at < 0.3:  # a gateway that answers at once is asked again in a moment
            await asyncio.sleep(min(0.5, max(0.0, left)))
    return photo


def _judge(photo: dict[str, Any], wait_seconds: float) -> tuple[str | None, str | None]:
    where = f"{photo['bucket']}/{photo['key']}"
    if photo["settled_at"] is None:
        return "not_ready", f"It is stored, but not ready after {wait_seconds:g} s: safelight why {where}"
    if photo["status"] == "rejected":
        rejection = photo["rejection"] or {}
        return str(rejection.get("code")), f"It is stored, but rejected: {rejection.get('detail')}"
    if photo["status"] == "partial":
        return "partial", f"It is stored, but a job of it is dead: safelight why {where}"
    return None, None


async def _read(wish: Wish, meter: Meter) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(wish.path.open, "rb")
    with file:
        sent = 0
        meter.sent(wish, 0)
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
            sent += len(piece)
            meter.sent(wish, sent)


def _check_readable(path: Path) -> None:
    """Before it is sent: an error in the middle of a request looks like one of the network."""
    path.open("rb").close()


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder.resolve()):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(root, name)).is_file())


def _is_photo(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return formats.sniff(file.read(formats.SNIFF_BYTES)) is not None
    except OSError:
        return True  # what cannot be read is told as a failure, not passed over
