"""A pool of warm children that run processors on strangers' bytes, one photo at a time each.

Promises: one photo's crash costs one child and nobody else's photo; a dead child is replaced in the
background; no call outlives its wall time. Does not retry and does not judge: what a crash means for a job
is the runner's matter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import Final, Self

import structlog

from processors.contract import Incomplete, Options, Outcome, Source, Unprocessable
from processors.sandbox import frames
from processors.sandbox.errors import ChildCrashed, ProcessorFailed
from processors.sandbox.frames import Reply
from processors.sandbox.process import Child, ChildLimits, start

__all__ = ["ChildCrashed", "ProcessorFailed", "Sandbox"]

log = structlog.get_logger(__name__)

_RETRY_START_SECONDS: Final = 0.5


class Sandbox:
    """`async with Sandbox(slots=2, ...) as sandbox: outcome = await sandbox.run("preview", source,
    options)`.

    Each slot is at any time exactly one of: an idle child, a child at work, a start under way, or the error
    of a start that failed (handed to the next caller, which sets off the next start). `extra_processors`
    names a module whose PROCESSORS the children also serve; only tests pass one.
    """

    def __init__(
        self,
        *,
        slots: int,
        wall_seconds: float,
        memory_bytes: int,
        photos_per_child: int,
        cpu_seconds: float | None = None,
        extra_processors: str = "",
    ) -> None:
        self._slots = slots
        self._wall_seconds = wall_seconds
        self._photos_per_child = photos_per_child
        self._limits = ChildLimits(
            memory_bytes=memory_bytes,
            cpu_seconds=wall_seconds if cpu_seconds is None else cpu_seconds,
            extra_processors=extra_processors,
        )
        self._idle: asyncio.Queue[Child | ProcessorFailed] = asyncio.Queue()
        self._children: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.starts = 0  # of children
        self.crashes: Counter[str] = Counter()  # of children over a photo, by reason

    async def __aenter__(self) -> Self:
        """Start all children. Raises ProcessorFailed if one cannot be started; then none is left."""
        results = await asyncio.gather(*(self._start() for _ in range(self._slots)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                await self.close()
                raise result
            self._idle.put_nowait(result)
        log.info("sandbox.ready", message="The sandbox has its children.", slots=self._slots, **self.confinement)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def child_pids(self) -> tuple[int, ...]:
        """The pids of the living children, idle and at work."""
        return tuple(sorted(child.process.pid for child in self._children if child.alive))

    @property
    def confinement(self) -> dict[str, object]:
        """What the children's best-effort isolation reached: `network_namespace` (bool), `landlock` (ABI or
        0), `process_filter` (bool).
        """
        return next((child.confinement for child in self._children if child.confinement), {})

    async def run(self, processor: str, source: Source, options: Options) -> Outcome:
        """Run one processor on one source, waiting for a free child first (the wall time starts then).

        Raises Unprocessable or Incomplete as the processor did, ChildCrashed, ProcessorFailed. If
        cancelled, the child is killed, because nobody knows what it is doing.
        """
        try:
            return await self._run(processor, source, options)
        except ChildCrashed as crash:
            self.crashes[crash.reason] += 1
            raise

    async def _run(self, processor: str, source: Source, options: Options) -> Outcome:
        child = await self._take()
        usable = False
        try:
            async with asyncio.timeout(self._wall_seconds):
                reply, blobs = await child.ask(processor, source, options)
            usable = reply.verdict != "memory" and child.photos < self._photos_per_child
        except TimeoutError:
            raise ChildCrashed("wall_time") from None
        except ChildCrashed as crash:
            if self._closed:
                raise ProcessorFailed("SandboxClosed", "the sandbox was closed during the photo") from None
            log.warning(
                "sandbox.child_crashed",
                message="A child died over a photo; another one takes its place.",
                child_pid=child.process.pid,
                reason=crash.reason,
            )
            raise
        finally:
            self._give_back(child, usable)
        return _outcome(reply, blobs)

    async def close(self) -> None:
        """Kill every child at once and wait until they are gone. Safe to call twice."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for child in self._children:
            child.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(child.gone() for child in self._children))
        self._children.clear()
        for _ in range(self._slots):  # wake whoever waits for a child
            self._idle.put_nowait(_closed())

    async def _take(self) -> Child:
        while True:
            if self._closed:
                raise _closed()
            found = await self._idle.get()
            if isinstance(found, ProcessorFailed):
                if self._closed:
                    self._idle.put_nowait(found)
                else:
                    self._replace(None, after_seconds=_RETRY_START_SECONDS)
                raise found
            if found.alive:
                return found
            self._replace(found)  # it died idle, which is no photo's fault

    def _give_back(self, child: Child, usable: bool) -> None:
        if self._closed:
            child.kill()
        elif usable and child.alive:
            self._idle.put_nowait(child)
        else:
            self._replace(child)

    def _replace(self, child: Child | None, after_seconds: float = 0) -> None:
        if child is not None:
            child.kill()
        task = asyncio.create_task(self._start_again(child, after_seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_again(self, old: Child | None, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        try:
            if old is not None:
                await old.gone()
                self._children.discard(old)
            self._idle.put_nowait(await self._start())
        except Exception as error:  # whatever it was: a slot with nothing in it would be lost for good
            failure = _not_started(error)
            log.error(  # noqa: TRY400  a trace of our own start says nothing
                "sandbox.child_not_started",
                message="A child could not be started; the next photo sets off another try.",
                problem=failure.trace,
                exc_info=failure is not error,
            )
            self._idle.put_nowait(failure)

    async def _start(self) -> Child:
        child = await start(self._limits)
        self._children.add(child)
        self.starts += 1
        return child


def _closed() -> ProcessorFailed:
    return ProcessorFailed("SandboxClosed", "the sandbox is closed")


def _not_started(error: Exception) -> ProcessorFailed:
    if isinstance(error, ProcessorFailed):
        return error
    return ProcessorFailed("ChildNotStarted", f"{type(error).__name__}: {error}")


def _outcome(reply: Reply, blobs: list[bytes]) -> Outcome:
    if reply.verdict == "outcome":
        return frames.outcome(reply, blobs)
    if reply.verdict == "unprocessable":
        raise Unprocessable(reply.code, reply.detail)
    if reply.verdict == "incomplete":
        raise Incomplete
    if reply.verdict == "memory":
        raise ChildCrashed("memory")
    raise ProcessorFailed(reply.code, reply.detail)
