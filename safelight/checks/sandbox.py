"""The sandbox and this machine's limits: a child is started and decodes a photo, as a worker's does."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator

from processors.contract import Source
from processors.sandbox.pool import ChildCrashed, ProcessorFailed, Sandbox
from safelight.checks.finding import Finding, fail, ok, warn
from safelight.settings import Settings

# One white pixel.
PIXEL_GIF = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
_FILES_WANTED = 1024


async def check(settings: Settings) -> AsyncIterator[Finding]:
    jobs = settings.jobs
    try:
        async with Sandbox(
            slots=1,
            wall_seconds=jobs.child_wall_seconds,
            memory_bytes=jobs.child_memory_bytes,
            photos_per_child=jobs.child_photos,
        ) as sandbox:
            made = await sandbox.run("preview", Source(data=PIXEL_GIF, size_bytes=len(PIXEL_GIF)), jobs.options)
            held = sandbox.confinement
    except (ChildCrashed, ProcessorFailed, OSError) as error:
        yield fail(
            "sandbox",
            f"A child could not decode a photo: {type(error).__name__}: {error}",
            "Raise SAFELIGHT_CHILD_MEMORY_BYTES, and see whether the container allows prctl and setrlimit.",
        )
        return
    yield ok("sandbox", f"A child decoded a photo into {len(made.artifacts)} previews, within its limits.")
    yield _network(bool(held.get("network_namespace")))
    yield _files(int(str(held.get("landlock") or 0)))
    yield _processes(bool(held.get("process_filter")))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES_WANTED:
        said = f"This process may open {soft} files."
        yield warn("open files", said, f"Allow {_FILES_WANTED} or more (ulimit -n, LimitNOFILE=).")


def _network(cut_off: bool) -> Finding:
    if cut_off:
        return ok("sandbox network", "Children have no network (a namespace of their own).")
    return warn(
        "sandbox network",
        "Children are not cut off from the network by a namespace: this kernel or container forbids it.",
        "Allow user namespaces (kernel.unprivileged_userns_clone, seccomp). The other limits hold.",
    )


def _processes(filtered: bool) -> Finding:
    if filtered:
        return ok("sandbox processes", "Children can start no processes of their own (seccomp).")
    return warn(
        "sandbox processes",
        "Children could start other processes: this kernel or container refuses a seccomp filter.",
        "Allow seccomp filters in the container. The other limits hold.",
    )


def _files(abi: int) -> Finding:
    if abi:
        return ok("sandbox files", f"Children may write no file and read libraries only (Landlock {abi}).")
    return warn(
        "sandbox files",
        "Landlock is not there: children could read what this user may read.",
        "Use Linux 5.13 or later with Landlock enabled. The other limits hold.",
    )
