"""A client of the REST door that keeps what it was promised: every 2xx with what was sent, every other answer with its
Idempotency-Key. Retries as clients should: the same key and bytes again, after Retry-After, at the next living gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.faults.harness.programs import Program
from tests.faults.harness.stack import Stack
from tests.photos import make_jpeg

_PAUSE_SECONDS = 0.1  # after an answer that never came
_AGAIN = {409, 429, 502, 503, 504}


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A 2xx. `seconds`: from the first try to it; `last_seconds`: of the try that it answers."""

    id: uuid.UUID
    key: str
    sha256: str
    idempotency_key: str
    at: float  # time.time()
    seconds: float
    last_seconds: float
    tries: int
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Another answer, or none (status 0: the connection was refused or broke)."""

    status: int
    code: str
    retry_after: str | None
    idempotency_key: str
    at: float
    seconds: float


class Ledger:
    """Everything that one client sent. `patience_seconds`: how long a put is retried before it is given up."""

    def __init__(self, stack: Stack, *, seed: int, patience_seconds: float = 30) -> None:
        self._stack = stack
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._turns = itertools.count()
        self._patience_seconds = patience_seconds
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {stack.token}"},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=60, sock_connect=2),
        )
        self.accepted: list[Accepted] = []
        self.refused: list[Refused] = []
        self.given_up: list[str] = []  # Idempotency-Keys

    async def close(self) -> None:
        await self._session.close()

    def photo(self) -> bytes:
        """A small JPEG like no other."""
        return make_jpeg(96, 72, noise=20, seed=self._random.randrange(1 << 32))

    async def put(
        self,
        body: bytes | None = None,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        gateway: Program | None = None,
        wait: float = 0,
        patience_seconds: float | None = None,
    ) -> Accepted | None:
        """Send one photo until it is accepted. None: given up (kept in `given_up`). A 4xx that no retry could change
        fails the test."""
        body = self.photo() if body is None else body
        key = key or f"load/{next(self._numbers):06}.jpg"
        idempotency_key = idempotency_key or uuid.UUID(int=self._random.getrandbits(128)).hex
        began = time.monotonic()
        deadline = began + (self._patience_seconds if patience_seconds is None else patience_seconds)
        for number in itertools.count(1):
            tried_at = time.monotonic()
            answer = await self._try(body, key, idempotency_key, gateway or self._turn(), wait)
            if isinstance(answer, Refused):
                self.refused.append(answer)
                assert answer.status in {0, *_AGAIN} or answer.status >= 500, answer
                pause_seconds = float(answer.retry_after or _PAUSE_SECONDS)
                if time.monotonic() + pause_seconds > deadline:
                    self.given_up.append(idempotency_key)
                    return None
                await asyncio.sleep(pause_seconds)
                continue
            photo, replayed = answer
            assert photo["sha256"] == hashlib.sha256(body).hexdigest(), photo
            ended = time.monotonic()
            self.accepted.append(
                Accepted(
                    id=uuid.UUID(photo["id"]),
                    key=key,
                    sha256=photo["sha256"],
                    idempotency_key=idempotency_key,
                    at=time.time(),
                    seconds=ended - began,
                    last_seconds=ended - tried_at,
                    tries=number,
                    replayed=replayed,
                )
            )
            return self.accepted[-1]
        raise AssertionError("unreachable")

    async def put_under(self, key: str) -> Accepted:
        """Send one photo, which must be accepted."""
        accepted = await self.put(key=key)
        assert accepted is not None, self.refused[-1]
        return accepted

    async def _try(
        self, body: bytes, key: str, idempotency_key: str, gateway: Program | None, wait: float
    ) -> tuple[dict[str, Any], bool] | Refused:
        began = time.monotonic()
        status, code, retry_after = 0, "no_gateway", None
        if gateway is not None:
            url = f"{gateway.url}/v1/photos/{self._stack.bucket}/{key}?wait={wait:g}"
            try:
                async with self._session.put(url, data=body, headers={"Idempotency-Key": idempotency_key}) as answer:
                    content = await answer.json(content_type=None)
                    if answer.ok:
                        return content, "Idempotent-Replayed" in answer.headers
                    status, code, retry_after = answer.status, content["code"], answer.headers.get("Retry-After")
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                code = type(error).__name__
        return Refused(
            status=status,
            code=code,
            retry_after=retry_after,
            idempotency_key=idempotency_key,
            at=time.time(),
            seconds=time.monotonic() - began,
        )

    def _turn(self) -> Program | None:
        """The living gateways in turn."""
        gateways = self._stack.gateways
        return gateways[next(self._turns) % len(gateways)] if gateways else None

    async def load(self, *, per_second: float, seconds: float) -> list[Accepted]:
        """Open-loop load: a put begins at each tick, however long the earlier ones take. Returns when all have ended,
        with those of this load that were accepted."""
        count = round(per_second * seconds)
        began = time.monotonic()
        tasks = []
        for number in range(count):
            await asyncio.sleep(max(0, began + number / per_second - time.monotonic()))
            tasks.append(asyncio.create_task(self.put()))
        return [found for found in await asyncio.gather(*tasks) if found is not None]

    @contextlib.asynccontextmanager
    async def loading(self, *, per_second: float) -> AsyncIterator[None]:
        """The same while the block runs; its puts have ended afterwards."""
        tasks: set[asyncio.Task[Accepted | None]] = set()

        async def tick() -> None:
            began = time.monotonic()
            for number in itertools.count():
                await asyncio.sleep(max(0, began + number / per_second - time.monotonic()))
                tasks.add(asyncio.create_task(self.put()))

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def get(self, path: str, *, gateway: Program | None = None) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        return await self.request("GET", path, gateway=gateway)

    async def request(
        self, method: str, path: str, *, gateway: Program | None = None, **options: Any
    ) -> tuple[int, Any]:
        """Status and JSON of any request at a living gateway."""
        chosen = gateway or self._turn()
        assert chosen is not None, "no gateway runs"
        async with self._session.request(method, chosen.url + path, **options) as answer:
            return answer.status, await answer.json(content_type=None)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
