"""One child process, seen from the parent: start it, ask it, kill it with everything it started.

Promises never to block the event loop and never to read more than frames.py allows. Whether a child is used
again is the pool's decision.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

import processors
from processors.contract import Options, Source
from processors.sandbox import frames
from processors.sandbox.errors import ChildCrashed, ProcessorFailed
from processors.sandbox.frames import ProtocolError, Reply

log = structlog.get_logger(__name__)

START_SECONDS: Final = 20.0  # a cold disk and a busy machine; 0.3 s is usual
_WRITE_BYTES: Final = 1 << 20  # a pipe's transport copies what it cannot write at once
_EXIT_SECONDS: Final = 5.0
_BEST_EFFORT: Final = ("network_namespace", "landlock", "process_filter")
_STDERR_LINES: Final = 20
_STDERR_BYTES: Final = 2_048

# -I leaves out the working directory and PYTHONPATH, so a checkout that is not installed names its root
# itself.
_BOOTSTRAP: Final = (
    "import sys; n = int(sys.argv[1]); roots, rest = sys.argv[2:2 + n], sys.argv[2 + n:]; "
    "sys.path[:0] = [root for root in roots if root not in sys.path]; "
    "from processors.sandbox.child import main; main(rest)"
)
_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MiB of the address space that is limited
    "VIPS_BLOCK_UNTRUSTED": "1",
    "VIPS_CONCURRENCY": "1",
    "VIPS_WARNING": "0",  # set at all, it silences warnings
}


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """What one child may use. `extra_processors` is a module that the child imports more processors from:
    for tests.
    """

    memory_bytes: int
    cpu_seconds: float
    extra_processors: str = ""


class Child:
    """A started child. `photos` counts what it was asked."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.photos = 0
        self.confinement: dict[str, Any] = {}
        self._stdin, self._stdout = process.stdin, process.stdout
        self._stderr_task = asyncio.create_task(self._log_stderr())
        self._killed = False

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def ask(self, processor: str, source: Source, options: Options) -> tuple[Reply, list[bytes]]:
        """One request and its checked answer. Raises ChildCrashed where the child died or broke the
        protocol.
        """
        self.photos += 1
        try:
            await self._send(frames.pack_request(processor, source, options), memoryview(source.data))
            reply = frames.parse_reply(await self._receive_header())
            return reply, [await self._stdout.readexactly(size) for size in reply.sizes]
        except (ConnectionError, asyncio.IncompleteReadError):
            raise ChildCrashed(await self._death()) from None
        except ProtocolError as error:
            log.warning(
                "sandbox.protocol_broken",
                message="A child answered what no child should; it is killed.",
                child_pid=self.process.pid,
                problem=str(error),
            )
            raise ChildCrashed("protocol") from None

    async def expect_ready(self) -> None:
        """Wait for the ready frame. Raises as `ask` does, ProtocolError for another frame."""
        header = frames.parse(await self._receive_header())
        if header.get("ready") is not True:
            raise ProtocolError("no ready frame")
        self.confinement = {name: header.get(name) for name in _BEST_EFFORT}

    def kill(self) -> None:
        """SIGKILL for the child and all that it started, however it ended. Safe to call twice."""
        if not self.alive and (self._killed or self.confinement.get("process_filter")):
            return  # nothing of it is left, and its number may be a stranger's by now
        self._killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def gone(self) -> None:
        """Kill and reap; return when no zombie and no log task is left."""
        self.kill()
        await self.process.wait()
        # A pipe that a stranger's grandchild holds open would keep the transport, which only this closes.
        self.process._transport.close()  # type: ignore[attr-defined]
        self._stderr_task.cancel()
        await asyncio.gather(self._stderr_task, return_exceptions=True)

    async def _send(self, header: bytes, data: memoryview) -> None:
        self._stdin.write(header)
        for start in range(0, len(data), _WRITE_BYTES):
            self._stdin.write(data[start : start + _WRITE_BYTES])
            await self._stdin.drain()
        await self._stdin.drain()

    async def _receive_header(self) -> bytes:
        length = frames.header_length(await self._stdout.readexactly(frames.LENGTH.size))
        return await self._stdout.readexactly(length)

    async def _death(self) -> str:
        """Why the child ended; a child that closed its pipe and lives on broke the protocol."""
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                code = await self.process.wait()
        except TimeoutError:
            return "protocol"
        if code >= 0:
            return "memory" if code == frames.EXIT_OUT_OF_MEMORY else f"exit:{code}"
        if -code == signal.SIGXCPU:
            return "cpu_time"
        return f"signal:{signal.Signals(-code).name}" if -code in list(signal.Signals) else f"signal:{-code}"

    async def _log_stderr(self) -> None:
        assert self.process.stderr is not None
        for _ in range(_STDERR_LINES):
            said = await self.process.stderr.read(_STDERR_BYTES)
            if not said:
                return
            log.warning(
                "sandbox.child_said",
                message="A child wrote this to its standard error.",
                child_pid=self.process.pid,
                text=said.decode("utf-8", "replace"),
            )
        while await self.process.stderr.read(1 << 16):
            pass


async def start(limits: ChildLimits) -> Child:
    """A warm child, ready for its first photo. Raises ProcessorFailed("ChildNotStarted", ...)."""
    roots = _import_roots(limits.extra_processors)
    arguments = [os.getpid(), limits.memory_bytes, limits.cpu_seconds, limits.extra_processors]
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _BOOTSTRAP, str(len(roots)), *roots, *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            start_new_session=True,  # a process group of its own, to be killed as one
            limit=1 << 20,
        )  # fmt: skip
    except OSError as error:
        raise ProcessorFailed("ChildNotStarted", str(error)) from error
    child = Child(process)
    try:
        async with asyncio.timeout(START_SECONDS):
            await child.expect_ready()
    except (OSError, EOFError, ProtocolError) as error:  # TimeoutError is an OSError
        await child.gone()
        raise ProcessorFailed("ChildNotStarted", f"{type(error).__name__}: {error}") from error
    except BaseException:
        await child.gone()
        raise
    return child


def _import_roots(extra: str) -> list[str]:
    roots = [str(Path(processors.__path__[0]).parent)]
    if extra:
        package = importlib.import_module(extra.partition(".")[0])
        roots.append(str(Path(package.__path__[0]).parent))
    return roots
