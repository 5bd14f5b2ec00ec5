"""Forbids a process for good to start another one; threads it may start.

A killed child takes its process group with it, but what it forked into a session of its own would live on. Best
effort: a seccomp filter, where the kernel has it and its system calls are known here. Linux only, standard library
only.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass
from typing import Final

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_CLONE_THREAD: Final = 0x00010000
_CLONE3: Final = 435  # the same on all architectures
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data, little-endian
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF codes
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_UNKNOWN: Final = 0x00050000 | errno.ENOSYS

Step = tuple[int, int, int, int]  # code, steps to skip if true, if false, operand


@dataclass(frozen=True, kw_only=True)
class Calls:
    """The system calls of an architecture, by their numbers: `clone` may make threads, `forks` only processes."""

    architecture: int
    clone: int
    forks: tuple[int, ...] = ()


_CALLS: Final = {
    "x86_64": Calls(architecture=0xC000003E, clone=56, forks=(57, 58)),
    "aarch64": Calls(architecture=0xC00000B7, clone=220),
    "riscv64": Calls(architecture=0xC00000F3, clone=220),
}
_X32: Final = 0x40000000  # the numbers of a second set of calls of x86_64; out of reach elsewhere


def forbid_processes() -> bool:
    """Whether the kernel took the filter, which binds this thread and all that it starts. Wants no-new-privileges."""
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return False
    steps = _filter(calls)
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    described = struct.pack("@HP", len(steps), ctypes.addressof(program))
    prctl = ctypes.CDLL(None).prctl
    return int(prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), described, 0, 0)) == 0


def _filter(calls: Calls) -> list[Step]:
    """clone3 hides its flags in memory, where no filter can look: said to be unknown, it has libc use clone."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, calls.architecture),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER_AT),
        *_answer(_AT_LEAST, _X32, _REFUSE),
        *_answer(_EQUAL, _CLONE3, _UNKNOWN),
        *(step for number in calls.forks for step in _answer(_EQUAL, number, _REFUSE)),
        (_EQUAL, 0, 3, calls.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _answer(test: int, operand: int, answer: int) -> list[Step]:
    return [(test, 0, 1, operand), (_RETURN, 0, 0, answer)]
