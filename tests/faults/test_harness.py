"""The harness itself: a ground and a Safelight on it come up, take load, and the invariants notice damage."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.harness.invariants import check
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.rates import Rate
from tests.faults.harness.stack import Stack


async def test_a_healthy_stack_violates_nothing_and_damage_is_seen(
    stack: Stack, open_ledger: Callable[..., Ledger]
) -> None:
    """Without a fault all nine invariants hold; each of six kinds of damage done by hand is named."""
    await stack.start(gateways=2, workers=1)
    ledger = open_ledger()
    await ledger.put()
    samples = {program: program.sample() for program in stack.programs}
    accepted = await ledger.load(per_second=10, seconds=1)
    assert len(accepted) == 10
    assert await check(stack, ledger, before=samples) == []
    assert all(proxy.total_bytes for proxy in stack.ground.proxies)
    assert stack.errors() == []

    await stack.blobs.delete(stack.bucket, accepted[0].key)
    await stack.blobs.put(stack.bucket, accepted[1].key, b"other", content_type="image/jpeg")
    await stack.blobs.put(stack.bucket, "stray.jpg", b"stray", content_type="image/jpeg")
    await stack.blobs.put(stack.derived_bucket, "stray/thumb.webp", b"stray", content_type="image/webp")
    await stack.blobs._client.create_multipart_upload(Bucket=stack.bucket, Key="begun.jpg")
    await stack.fetch("update job set state = 'dead', outcome = null where object_id = $1", accepted[2].id)
    await stack.fetch("update object set status = 'processing', settled_at = null where id = $1", accepted[2].id)
    found = await check(stack, ledger)
    assert [violation[:2] for violation in found] == ["I1", "I1", "I2", "I3", "I5", "I6"], found


async def test_a_lost_rate_is_seen(stack: Stack, open_ledger: Callable[..., Ledger], rate: Rate) -> None:
    """The rate counts as kept where nothing happened, and as lost where one of four slots is gone, or where one of two
    workers is frozen and the other one runs its jobs after their leases."""
    await stack.start(gateways=1, workers=2)
    ledger, (_, victim) = open_ledger(), stack.workers
    await rate.measure(ledger.put_under)
    await rate.assert_kept(ledger.put_under)
    await victim.stop()
    smaller = await stack.start_worker(worker_slots="1")
    with pytest.raises(AssertionError, match="after it no more than"):
        await rate.assert_kept(ledger.put_under, patience_seconds=5)
    smaller.suspend()
    with pytest.raises(AssertionError, match="after it no more than"):
        await rate.assert_kept(ledger.put_under, patience_seconds=1)
