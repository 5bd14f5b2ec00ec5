"""A client of server-sent events that believes only what the format says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(kw_only=True)
class Heard:
    """One dispatched event."""

    id: str
    type: str
    body: dict[str, Any]


@dataclass(kw_only=True)
class Ear:
    """One open stream: what came, and the id to come back with."""

    answer: aiohttp.ClientResponse
    last_id: str = ""
    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None

    async def events(self) -> AsyncIterator[Heard]:
        """Each event as it comes, until the stream ends."""
        kind, data = "message", ""
        async for raw in self.answer.content:
            line = raw.decode().rstrip("\n")
            name, _, text = line.partition(":")
            text = text.removeprefix(" ")
            if not line:
                if data:
                    yield Heard(id=self.last_id, type=kind, body=json.loads(data))
                kind, data = "message", ""
            elif not name:
                self.comments.append(text)
            elif name == "event":
                kind = text
            elif name == "data":
                data += text
            elif name == "id":
                self.last_id = text
            elif name == "retry":
                self.retry_ms = int(text)

    async def hear(self, number: int, *, seconds: float = 10) -> list[Heard]:
        """The next so many events. Fails where they do not come."""
        found: list[Heard] = []
        async with asyncio.timeout(seconds):
            async for event in self.events():
                found.append(event)
                if len(found) == number:
                    return found
        raise AssertionError(f"the stream ended after {found}")
