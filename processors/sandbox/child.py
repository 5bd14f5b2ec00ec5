"""The child's main loop: read a request, run the processor, write the answer. Decodes strangers' bytes, so
it owns nothing.

Started by pool.py with an isolated interpreter and an empty environment. It imports everything first, then
gives up its rights (limits.py), then says that it is ready. Its own stdout is turned to stderr: a library's
print breaks no frame.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import traceback
from typing import Any, BinaryIO, Final

from processors import registry
from processors.contract import Incomplete, Outcome, Processor, Source, Unprocessable
from processors.sandbox import frames, limits

_IMPORTED_FIRST: Final = ("processors.photos.preview", "processors.photos.exif", "pillow_heif")


def main(arguments: list[str]) -> None:
    """Serve until stdin ends. `arguments`: parent pid, memory bytes, CPU seconds per photo, a module of more
    processors or an empty string."""
    parent_pid, memory_bytes, cpu_seconds, extra = arguments
    logging.disable(logging.CRITICAL)  # decoders' loggers describe strangers' files at length
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    processors = _processors(extra)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    confined = limits.confine(memory_bytes=int(memory_bytes), parent_pid=int(parent_pid))
    _write(replies, frames.pack({"ready": True, **confined}))
    while prefix := requests.read(frames.LENGTH.size):
        limits.allow_cpu_seconds(float(cpu_seconds))
        header = frames.parse(requests.read(frames.header_length(prefix)))
        try:
            _write(replies, *_answer(header, requests, processors))
        except MemoryError:  # the rest of the photo may still be in the pipe: nothing more can be read from it
            _write(replies, frames.pack({"verdict": "memory"}))
            os._exit(frames.EXIT_OUT_OF_MEMORY)


def _processors(extra: str) -> dict[str, Processor]:
    for module in _IMPORTED_FIRST:
        importlib.import_module(module)
    added = importlib.import_module(extra).PROCESSORS if extra else ()
    return {processor.name: processor for processor in (*registry.available(), *added)}


def _answer(header: dict[str, Any], requests: BinaryIO, processors: dict[str, Processor]) -> list[bytes]:
    """The frames of one answer. What a processor raises becomes a verdict; only MemoryError is raised."""
    try:
        data = requests.read(header["data_bytes"])
        source = Source(data=data, size_bytes=header["size_bytes"], complete=header["complete"])
        outcome = processors[header["processor"]].run(source, frames.parse_options(header))
        return [frames.pack_outcome(outcome), *_blobs(outcome)]
    except Unprocessable as error:
        return [frames.pack({"verdict": "unprocessable", "code": error.code, "detail": error.detail})]
    except Incomplete:
        return [frames.pack({"verdict": "incomplete"})]
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  a bug in a processor is reported, not died of
        return [frames.pack({"verdict": "failed", "type": type(error).__name__, "traceback": _trace(error)})]


def _trace(error: Exception) -> str:
    text = "".join(traceback.format_exception(error, limit=-20))[-8000:]
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _blobs(outcome: Outcome) -> list[bytes]:
    return [artifact.data for artifact in outcome.artifacts]


def _write(replies: BinaryIO, *parts: bytes) -> None:
    replies.writelines(parts)
    replies.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
