"""Processors that misbehave inside a child: served only to children whose Sandbox was told of this module."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

from processors.contract import Artifact, Incomplete, Options, Outcome, Processor, Source, Unprocessable


def _echo(source: Source, options: Options) -> Outcome:
    """Sound: gives the bytes back, so that a mix-up of answers would show."""
    artifact = Artifact(
        preset="echo",
        preset_version="1",
        data=bytes(source.data) or b"-",
        content_type="application/octet-stream",
        extension="bin",
        width_px=1,
        height_px=1,
    )
    facts = {"pid": os.getpid(), "size_bytes": source.size_bytes, "complete": source.complete}
    return Outcome(artifacts=(artifact,), facts=facts | {"presets": [preset.name for preset in options.presets]})


def _kill_self(source: Source, options: Options) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _segfault(source: Source, options: Options) -> Outcome:
    ctypes.string_at(0)
    raise AssertionError("unreachable")


def _exit(source: Source, options: Options) -> Outcome:
    os._exit(7)


def _allocate(source: Source, options: Options) -> Outcome:
    return Outcome(facts={"bytes": len(bytearray(2 << 30))})


def _spin(source: Source, options: Options) -> Outcome:
    while True:
        pass


def _hang(source: Source, options: Options) -> Outcome:
    signal.pause()
    raise AssertionError("unreachable")


def _fork(source: Source, options: Options) -> Outcome:
    """A grandchild that would outlive its parent; its pid goes to stderr, then both stay."""
    pid = os.fork()
    if pid:
        os.write(2, f"grandchild={pid}\n".encode())
    signal.pause()
    raise AssertionError("unreachable")


def _fork_away(source: Source, options: Options) -> Outcome:
    """A grandchild in a session of its own, which no signal to the child's process group reaches."""
    if os.fork() == 0:
        os.setsid()
        signal.pause()
    return Outcome(facts={})


def _raw(payload: bytes) -> Callable[[Source, Options], Outcome]:
    """Writes to every descriptor that may be the answers' pipe, then stays."""

    def run(source: Source, options: Options) -> Outcome:
        for descriptor in range(3, 32):
            try:
                os.write(descriptor, payload)
            except OSError:
                continue
        signal.pause()
        raise AssertionError("unreachable")

    return run


def _print(source: Source, options: Options) -> Outcome:
    """Chatty libraries: both Python's and C's stdout."""
    print("x" * 10_000)
    os.write(1, b"y" * 200_000)
    sys.stdout.flush()
    return Outcome(facts={"said": True})


def _bug(source: Source, options: Options) -> Outcome:
    raise ZeroDivisionError("a bug with a \0 and a \ud800")


def _refuse(source: Source, options: Options) -> Outcome:
    raise Unprocessable("malformed", "The file is damaged.")


def _incomplete(source: Source, options: Options) -> Outcome:
    if not source.complete:
        raise Incomplete
    return Outcome(facts={"bytes": len(source.data)})


def _bad_facts(source: Source, options: Options) -> Outcome:
    return Outcome(facts={"value": float("nan")})


def _probe(source: Source, options: Options) -> Outcome:
    """What a taken-over child could still do."""
    return Outcome(
        facts={
            "environment": sorted(os.environ),
            "write": _tries(lambda: os.close(os.open("/tmp/safelight-probe", os.O_CREAT | os.O_WRONLY))),
            "read_etc": _tries(lambda: os.close(os.open("/etc/passwd", os.O_RDONLY))),
            "connect": _tries(lambda: socket.create_connection(("127.0.0.1", source.size_bytes), 1).close()),
            "signal_parent": _tries(lambda: os.kill(os.getppid(), 0)),
            "read_parent": _tries(lambda: os.close(os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY))),
            "read_parent_memory": _tries(_read_parent_memory),
            "core": _limit("RLIMIT_CORE"),
            "file_size": _limit("RLIMIT_FSIZE"),
            "open_files": _limit("RLIMIT_NOFILE"),
            "no_new_privileges": ctypes.CDLL(None).prctl(39, 0, 0, 0, 0),
        }
    )


def _read_parent_memory() -> None:
    """By process_vm_readv. Where the kernel lets it, the address alone may be wrong."""
    libc, buffer = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(8)
    place = struct.pack("@PN", ctypes.addressof(buffer), 8)
    if libc.process_vm_readv(os.getppid(), place, 1, place, 1, 0) < 0 and ctypes.get_errno() != errno.EFAULT:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def _sleep_as_told(source: Source, options: Options) -> Outcome:
    """Stays for as many seconds as the source says: work of a known length."""
    time.sleep(struct.unpack(">d", bytes(source.data))[0])
    return Outcome(facts={"pid": os.getpid()})


def _nap(source: Source, options: Options) -> Outcome:
    """Occupies its child for a fixed time, and no core."""
    time.sleep(0.3)
    return Outcome(facts={})


def _tries(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "allowed"


def _limit(name: str) -> int:
    import resource

    return resource.getrlimit(getattr(resource, name))[0]


PROCESSORS = tuple(
    Processor(name=name, version=1, run=run)
    for name, run in {
        "echo": _echo,
        "kill-self": _kill_self,
        "segfault": _segfault,
        "exit": _exit,
        "allocate": _allocate,
        "spin": _spin,
        "hang": _hang,
        "fork": _fork,
        "fork-away": _fork_away,
        "junk": _raw(b"\0\0\0\x10" + b"junk" * 4),
        "huge": _raw(b"\xff\xff\xff\xff"),
        "lie": _raw(b'\0\0\0\x2b{"verdict":"unprocessable","code":"../etc"}'),
        "print": _print,
        "bug": _bug,
        "refuse": _refuse,
        "incomplete": _incomplete,
        "bad-facts": _bad_facts,
        "probe": _probe,
        "sleep": _sleep_as_told,
        "nap": _nap,
    }.items()
)
