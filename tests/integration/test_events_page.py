"""docs/events.md: its examples are run, and its figures are those of the settings."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processors.webhooks import signing
from processors.webhooks.sending import Sender
from processors.webhooks.settings import WebhookSettings
from processors.webhooks.targets import parse_networks
from storage import events
from tests.integration.stage import until

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
RECEIVER, BY_HAND = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BODY = {"id": "0" * 16, "type": "photo.ready", "data": {"key": "2026/\u00fc.jpg"}}


def sign(secret: str, text: str) -> dict[str, str]:
    return signing.sign(text, message_id=BODY["id"], at=datetime.now(UTC), signing_secrets=[secret])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_receiver_of_the_page_takes_what_is_sent() -> None:
    """As it stands there it verifies our requests, tells each event once, and refuses a forged one."""
    secret, port, text = signing.make_secret(), free_port(), signing.write_body(BODY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RECEIVER),
        env={"PATH": os.defpath, "WEBHOOK_SECRET": secret, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with Sender(parse_networks("127.0.0.1"), timeout_seconds=5) as sender:

            async def send(headers: dict[str, str]) -> int | None:
                return (await sender.send(f"http://127.0.0.1:{port}/hook", text, headers)).result.status_code

            async def listening() -> int | None:
                return await send(sign(signing.make_secret(), text))

            assert await until(listening, seconds=20, what="the receiver listens") == 400
            assert [await send(sign(secret, text)) for _ in range(2)] == [204, 204]
            later = {**BODY, "id": "1" * 16, "type": "photo.deleted"}
            text = signing.write_body(later)
            assert await send(sign(secret, text)) == 204
        lines = [await asyncio.wait_for(process.stdout.readline(), 10) for _ in range(2)]
    finally:
        process.kill()
        await process.wait()
    assert [line.decode() for line in lines] == ["photo.ready 2026/\u00fc.jpg\n", "photo.deleted 2026/\u00fc.jpg\n"]


def test_the_check_by_hand_agrees_with_the_library() -> None:
    """It takes what we sign with either secret, and nothing that was altered or is old."""
    found: dict[str, Any] = {}
    exec(BY_HAND, found)
    ours, older = signing.make_secret(), signing.make_secret()
    text = signing.write_body(BODY)
    headers = signing.sign(text, message_id=BODY["id"], at=datetime.now(UTC), signing_secrets=[ours, older])
    is_genuine = found["is_genuine"]
    assert is_genuine(ours, headers, text.encode())
    assert is_genuine(older, headers, text.encode())
    assert not is_genuine(signing.make_secret(), headers, text.encode())
    assert not is_genuine(ours, headers, text.encode() + b" ")
    old = signing.sign(text, message_id=BODY["id"], at=datetime(2026, 1, 1, tzinfo=UTC), signing_secrets=[ours])
    assert not is_genuine(ours, old, text.encode())


def test_the_page_names_what_there_is() -> None:
    """Every type of event is in its table, and its figures are the defaults."""
    assert re.findall(r"^\| `([a-z.]+)` \|", PAGE, re.MULTILINE) == list(events.TYPES)
    settings = WebhookSettings()
    figures = {
        "SAFELIGHT_WEBHOOK_TIMEOUT_SECONDS": settings.webhook_timeout_seconds,
        "SAFELIGHT_WEBHOOK_ATTEMPTS": settings.webhook_attempts,
        "SAFELIGHT_WEBHOOK_LOG_HOURS": settings.webhook_log_hours,
    }
    for name, figure in figures.items():
        assert f"`{name}` ({figure})" in PAGE
    bounds = [
        min(settings.webhook_backoff_cap_seconds, settings.webhook_backoff_base_seconds * 2**n)
        for n in range(1, settings.webhook_attempts)
    ]
    assert 14 < sum(bounds) / 2 / 3600 < 16
    assert 28 < sum(bounds) / 3600 <= 30
