"""What a key is limited to: nothing, or places, each a bucket or the keys of a bucket that begin with a prefix.

Pure. Prefixes are compared literally: `photos/wed` covers `weddings/` and `wednesday.jpg`. The derived bucket is judged
by the source that its keys name. Scopes (may it read, may it write) are the gatekeeper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from storage import keys

# How a source key begins in the derived bucket when it was too long to be spelled out (storage.keys.artifact_key).
_HASHED = "sha256-"


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The places of one key, as `parse_place` gives them. No places: the key is not limited."""

    places: tuple[str, ...] = ()
    derived_bucket: str

    @property
    def is_limited(self) -> bool:
        return bool(self.places)

    def covers(self, bucket: str, key: str) -> bool:
        """Whether this object is within reach."""
        return not self.is_limited or (not _climbs(key) and self._covers(bucket, key))

    def covers_prefix(self, bucket: str, prefix: str) -> bool:
        """Whether a listing of that prefix shows nothing that is out of reach."""
        return not self.is_limited or (not _climbs(prefix) and self._covers(bucket, prefix))

    def covers_bucket(self, bucket: str) -> bool:
        """Whether the whole bucket is within reach."""
        return not self.is_limited or bucket in self.places

    def touches(self, bucket: str) -> bool:
        """Whether anything of the bucket may be within reach."""
        derived = bucket == self.derived_bucket
        return not self.is_limited or derived or any(name == bucket for name, _ in self._split())

    def _covers(self, bucket: str, key: str) -> bool:
        if any(name == bucket and key.startswith(prefix) for name, prefix in self._split()):
            return True
        return bucket == self.derived_bucket and self._covers_derived(key)

    def _covers_derived(self, key: str) -> bool:
        source_bucket, slash, source = key.partition("/")
        if not slash:  # a listing that is not within one source bucket
            return False
        # A hash does not tell which key it stands for, so only who may see the whole bucket may see it.
        may_be_hashed = source.startswith(_HASHED) or _HASHED.startswith(source)
        return any(
            name == source_bucket and source.startswith(prefix) and not (prefix and may_be_hashed)
            for name, prefix in self._split()
        )

    def _split(self) -> Iterator[tuple[str, str]]:
        for place in self.places:
            bucket, _, prefix = place.partition("/")
            yield bucket, prefix


def parse_place(text: str) -> str:
    """A place as it is kept: `bucket` or `bucket/prefix`. Raises ValueError, whose message says what is wrong."""
    bucket, _, prefix = text.partition("/")
    keys.check_bucket(bucket)
    if not prefix:
        return bucket
    if prefix.endswith("*"):
        raise ValueError("a prefix is compared literally: leave the * at its end out")
    # What a key may not hold, the beginning of one may not hold either; an unfinished last part is made a whole one.
    keys.check_key(prefix.removesuffix("/") if prefix.endswith("/") else prefix + "_")
    return f"{bucket}/{prefix}"


def _climbs(key: str) -> bool:
    """Whether a storage could take the key for another one: some resolve dots, some take a backslash for a slash."""
    return any(part in (".", "..") for part in key.replace("\\", "/").split("/"))
