"""How a photo can fail without a verdict: its child died, or the processor has a bug."""

from __future__ import annotations


class ChildCrashed(Exception):
    """The child died, hung, ran out of memory or broke the protocol while it had the photo.

    `reason` is one of "signal:<NAME>", "memory", "wall_time", "cpu_time", "protocol", "exit:<number>".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProcessorFailed(Exception):
    """The processor raised what it should not (or no child could be started). `trace` is for logs, not for
    strangers.
    """

    def __init__(self, kind: str, trace: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.trace = trace
