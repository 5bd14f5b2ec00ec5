"""The running Safelight that the acceptance tests share, and its clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.stack import Api, Stack


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Safelight of these tests; after the last test it must stop with code 0 and leave no process behind."""
    made = Stack(
        tmp_path_factory.mktemp("stack"),
        SAFELIGHT_LEASE_SECONDS="3",
        SAFELIGHT_SNOOZE_SECONDS="0.5",
        SAFELIGHT_MAX_UPLOAD_BYTES="16MiB",
        SAFELIGHT_WEBHOOK_SLOTS="0",  # generated requests make webhooks that lead anywhere
        # Originals that a test deletes are to be missed by the jobs, and by nobody else.
        SAFELIGHT_RECONCILE_INTERVAL_SECONDS="0",
        SAFELIGHT_UP_EVENTS="off",
    )
    try:
        made.start()
        yield made
        made.stop()
    finally:
        made.end()


@pytest.fixture
def api(stack: Stack) -> Api:
    """The gateway, with a token of all scopes."""
    return stack.api


@pytest.fixture
def s3(stack: Stack) -> Any:
    """boto3 on the storage behind the gateway."""
    return stack.s3


@pytest.fixture
def prefix() -> str:
    """What the keys of this test begin with."""
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def bucket(stack: Stack, s3: Any) -> Iterator[str]:
    """An empty bucket of this test alone."""
    name = f"t{uuid.uuid4().hex[:10]}"
    s3.create_bucket(Bucket=name)
    yield name
    for key in stack.list_keys(name):
        s3.delete_object(Bucket=name, Key=key)
    s3.delete_bucket(Bucket=name)
