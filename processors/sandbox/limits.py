"""What a child gives up before it meets a stranger's bytes: memory, files, network, other processes, its
afterlife.

Resource limits, dying with the parent and no-new-privileges must hold, or OSError is raised. The namespaces, Landlock
and the filter of system calls are best effort, because not every kernel or container allows them without root;
`confine` says what holds. Linux only, standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from typing import Final

from processors.sandbox.syscalls import forbid_processes

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on all architectures
_LANDLOCK_MACHINES: Final = ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x")
_LANDLOCK_VERSION: Final = 1  # flag of landlock_create_ruleset: tell the ABI
_RULE_PATH_BENEATH: Final = 1
_READ: Final = 0b1101  # execute, read file, read directory
_FILE_RIGHTS: Final = {
    1: (1 << 13) - 1,
    2: (1 << 14) - 1,
    3: (1 << 15) - 1,
    4: (1 << 15) - 1,
    5: (1 << 16) - 1,
}
_NET_RIGHTS: Final = 0b11  # bind and connect, TCP
_SCOPES: Final = 0b11  # abstract sockets and signals stay inside
_MAX_OPEN_FILES: Final = 32

_libc = ctypes.CDLL(None, use_errno=True)


def confine(*, memory_bytes: int, parent_pid: int) -> dict[str, int | bool]:
    """Apply everything to this process, once, after its imports and while it has one thread.

    Returns what the best-effort layers reached: `network_namespace`, `landlock` as the kernel's ABI or 0, and
    `process_filter`.
    Raises OSError where a limit that must hold does not, SystemExit where the parent has gone meanwhile.
    """
    network = _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) == 0
    # After unshare: a change of credentials takes the death signal back.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        raise SystemExit(0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    landlock = _restrict_paths()
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    return {"network_namespace": network, "landlock": landlock, "process_filter": forbid_processes()}


def allow_cpu_seconds(seconds: float) -> None:
    """Let the process use so much more CPU time from now; beyond it the kernel sends SIGXCPU, which ends
    it.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + max(1.0, seconds)) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _restrict_paths() -> int:
    """No writing anywhere, reading only beneath the interpreter's and the libraries' directories, no TCP."""
    if platform.machine() not in _LANDLOCK_MACHINES:
        return 0
    abi = int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION))
    if abi < 1:
        return 0
    attributes = struct.pack("=Q", _FILE_RIGHTS[min(abi, 5)])
    if abi >= 4:
        attributes += struct.pack("=Q", _NET_RIGHTS)
    if abi >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = int(_libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        return 0
    try:
        for directory in _readable_directories():
            _allow_reading(ruleset, directory)
        return abi if _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _readable_directories() -> list[str]:
    """Where imports and shared libraries come from."""
    wanted = [
        *sys.path,
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/share/zoneinfo",
    ]
    return sorted({path for path in wanted if path and path != "/" and os.path.isdir(path)})


def _allow_reading(ruleset: int, directory: str) -> None:
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("=Qi", _READ, descriptor)
        _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
