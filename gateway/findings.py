"""Everything that can be wrong between Postgres and the storage, in words, and the tally of it. Does no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Action = Literal["repaired", "left"]

# Every finding, and what it means. Those in NOTICES are nobody's fault: they do not make a run fail.
FINDINGS: Final[dict[str, str]] = {
    "unrecorded_object": "A photo in the storage that Postgres does not know; it is recorded and gets its jobs.",
    "unrecorded_generation": "Other bytes lie under a photo's key than Postgres knows; they are recorded.",
    "not_a_photo": "An object in a bucket of photos that does not begin like a photo; it is left alone.",
    "unusable_key": "An object whose key Safelight does not take; it is left alone.",
    "unreadable": "An object that the storage will not let be read; it is left alone.",
    "bucket_missing": "A bucket that has photos in Postgres but is not in the storage; nothing is changed.",
    "original_missing": "DATA LOSS: a photo in Postgres whose original is gone.",
    "preview_missing": "A preview whose object is gone; it is made again.",
    "preview_changed": "A preview whose object is not the one that was made; it is made again.",
    "preview_outdated": "A photo that lacks a wanted preview, or has it from other settings; they are made again.",
    "job_missing": "A photo without a job of some processor that watches there; it is left alone.",
    "orphaned_preview": "A preview of ours whose photo is gone from Postgres and the storage; it is deleted.",
    "unknown_derived": "An object in the bucket of previews that cannot be proved to be an orphan; it is left alone.",
    "dangling_upload": "A multipart upload of a gateway that died; it is aborted.",
    "foreign_upload": "An old multipart upload of somebody else; aborted only where that was asked for.",
    "lease_expired": "A job whose worker fell silent, not taken back; gateways and workers do that while they run.",
    "job_overdue": "A due job that nobody dispatched; gateways and workers do that while they run.",
}
NOTICES: Final = frozenset({"not_a_photo"})


@dataclass(kw_only=True)
class Tally:
    """What was found, by finding and what became of it."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, finding: str, action: Action, times: int = 1) -> None:
        if times:
            self.counts.setdefault(finding, Counter())[action] += times

    def add(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        for finding, actions in counts.items():
            self.counts.setdefault(finding, Counter()).update(actions)

    def found(self, finding: str) -> int:
        return sum(self.counts.get(finding, Counter()).values())

    @property
    def clean(self) -> bool:
        """Nothing was left that somebody should see to."""
        return not any(actions["left"] for name, actions in self.counts.items() if name not in NOTICES)
