"""Whether a denial is about one object, or about us: a storage answers 403 in both cases, and says no more."""

from __future__ import annotations

from collections.abc import Awaitable

from storage.blobs import BlobRefused, Blobs, BlobsDenied


async def refuses_all(blobs: Blobs, bucket: str) -> bool:
    """To be asked after a denial in that bucket. False: the bucket or our default one lets us in, so what was denied is
    an object, or a bucket that is not ours, and waiting would not help. Raises BlobsUnavailable where the storage does
    not answer."""
    return not await _lets_in(blobs.has_bucket(bucket, fresh=True)) and not await _lets_in(blobs.ping())


async def _lets_in(asking: Awaitable[object]) -> bool:
    try:
        await asking
    except BlobsDenied:
        return False
    except BlobRefused:  # it is in another region, for one
        return True
    return True
