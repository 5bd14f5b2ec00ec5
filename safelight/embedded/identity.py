"""What happens in a child between fork and exec: die with the parent, and not be root where root is refused.

Postgres refuses to run as root. As root it runs in a user namespace of its own, where root is called
`nobody`; where the kernel refuses namespaces, as the real `nobody` with the one capability that lets it reach
its program and data in folders closed to others. Nothing is copied, no existing folder's permissions change.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

Identity = Literal["same", "namespace", "nobody"]

NOBODY = 65534
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
_NO_SETUID_FIXUP = 1 << 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522
# Loaded before any fork: a child between fork and exec must not load libraries.
_libc = ctypes.CDLL(None, use_errno=True)


class NoIdentity(Exception):
    """Root can neither make a user namespace nor become `nobody`. The message says what to do."""


def child_setup(death_signal: signal.Signals, identity: Identity = "same") -> Callable[[], None]:
    """A preexec_fn: take the identity, then get `death_signal` when the spawning thread dies (Linux only)."""
    parent = os.getpid()

    def setup() -> None:
        if identity == "namespace":
            _enter_namespace()
        elif identity == "nobody":
            _become_nobody()
        if sys.platform == "linux":
            # After the change of identity, which would clear it.
            _check(_libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0))
            if os.getppid() != parent:
                os._exit(1)  # the parent died before it could be watched

    return setup


def choose_identity() -> Identity:
    """How a program that refuses root can run here. Tries it. Raises NoIdentity."""
    if os.geteuid() != 0:
        return "same"
    tries: tuple[Identity, ...] = ("namespace", "nobody")
    for identity in tries:
        if _works(identity):
            return identity
    raise NoIdentity(
        "Postgres does not run as root, and this kernel allows neither a user namespace nor a "
        "change to `nobody`. Start Safelight as an ordinary user, or set SAFELIGHT_POSTGRES_DSN "
        "to a Postgres of your own."
    )


def owner_uid(identity: Identity) -> int:
    """The uid, seen from outside, that must own the data of a server with this identity."""
    return NOBODY if identity == "nobody" else os.geteuid()


def _works(identity: Identity) -> bool:
    code = "import os, sys; raise SystemExit(os.geteuid() == 0 or not os.access(sys.argv[1], os.X_OK))"
    command = [sys.executable, "-I", "-S", "-c", code, sys.executable]
    try:
        setup = child_setup(signal.SIGKILL, identity)
        return subprocess.run(command, preexec_fn=setup, check=False, cwd="/").returncode == 0  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return False


def _enter_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {uid} 1"),
        ("gid_map", f"{NOBODY} {gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _become_nobody() -> None:
    # A change of uid would drop all capabilities, and access(2) would not count them: initdb calls it.
    _check(_libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    bit = 1 << _CAP_DAC_OVERRIDE
    header, sets = _Header(_CAPABILITY_VERSION_3, 0), (_Sets * 2)(_Sets(bit, bit, bit), _Sets(0, 0, 0))
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(sets)))
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
