"""Sends what is due to webhooks: claim -> sign -> send -> finish. Runs in every worker; Redis is not asked.

Woken by NOTIFY, and looks by itself every second. An attempt is bounded in time, and its lease is longer, so there is
no heartbeat: what a killed worker had under way is sent again when the lease ends. So each event comes at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import structlog

from processors.webhooks import signing, verdicts
from processors.webhooks.metrics import WebhookMetrics
from processors.webhooks.sending import Answer, Sender
from processors.webhooks.settings import WebhookSettings
from processors.webhooks.verdicts import Again, Dead, Delivered, Verdict
from storage import deliveries, failpoints
from storage.database import EVENT_CHANNEL, Connection, Database, DatabaseUnavailable, Listener
from storage.deliveries import Claim, Fenced, Result
from storage.sealing import MasterKeys, SealBroken
from storage.settings import StorageSettings

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_LEASE_MARGIN_SECONDS = 15.0  # for claiming, signing and writing down, on a machine that is busy
_SEAL_SNOOZE_SECONDS = 60.0
_END_SECONDS = 5.0


class Deliverer:
    """The deliveries of one worker."""

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        database: Database,
        sender: Sender,
        masters: MasterKeys,
        worker_id: str,
        metrics: WebhookMetrics,
        lease_margin_seconds: float = _LEASE_MARGIN_SECONDS,
    ) -> None:
        self._settings = settings
        self._database = database
        self._sender = sender
        self._masters = masters
        self._worker_id = worker_id
        self._metrics = metrics
        self._lease_seconds = settings.webhook_timeout_seconds + lease_margin_seconds
        self._awake = asyncio.Event()
        self._reap_at = 0.0
        self._running: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Something may be due."""
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled. What is under way then goes on until `drain`."""
        while True:
            self._awake.clear()
            try:
                if time.monotonic() >= self._reap_at:
                    await self._reap()
                    self._reap_at = time.monotonic() + _LOOK_SECONDS
                if await self._take():
                    continue
            except DatabaseUnavailable:
                pass
            except Exception:  # without this loop nothing is delivered: nothing may end it
                log.exception("webhooks.turn_failed", message="A turn of delivering failed; the next one follows.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._awake.wait()

    async def drain(self) -> None:
        """Give what is under way a few seconds; the rest is ready again at once, for other workers."""
        if self._running:
            await asyncio.wait(self._running, timeout=_END_SECONDS)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_END_SECONDS)

    async def _reap(self) -> None:
        async with self._database.transaction() as conn:
            lost = await deliveries.reap(conn, max_attempts=self._settings.webhook_attempts)
        for item in lost:
            log.warning("delivery.expired", message="A worker fell silent over a delivery.", **item)

    async def _take(self) -> bool:
        """Begin what is due, as far as there is room. True: there may be more."""
        room = self._settings.webhook_slots - len(self._running)
        if room <= 0:
            await asyncio.wait(self._running, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return True
        async with self._database.connection() as conn:
            claims = await deliveries.claim(
                conn,
                worker=self._worker_id,
                lease_seconds=self._lease_seconds,
                per_webhook=self._settings.webhook_concurrency,
                limit=room,
            )
        for claim in claims:
            task = asyncio.create_task(self._deliver(claim))
            self._running.add(task)
            task.add_done_callback(self._done)
        return len(claims) == room

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.wake()  # its webhook may be sent the next one

    async def _deliver(self, claim: Claim) -> None:
        try:
            await failpoints.reach("delivery.claimed")
            await self._attempt(claim)
        except Fenced:
            self._metrics.count("fenced")
            log.info("delivery.fenced", message="A late verdict was thrown away.", **_ids(claim))
        except asyncio.CancelledError:
            await self._release(claim)
            raise
        except DatabaseUnavailable:
            log.warning("delivery.left", message="The delivery's lease will run out.", **_ids(claim))
        except Exception:
            log.exception("delivery.failed", message="A delivery failed unexpectedly; its lease ends.", **_ids(claim))

    async def _attempt(self, claim: Claim) -> None:
        try:
            signing_secrets = self._open_secrets(claim)
        except SealBroken as error:
            log.warning(
                "webhook.secret_sealed",
                message="A webhook's secret cannot be opened. Give SAFELIGHT_MASTER_KEY, or rotate the secret.",
                webhook_id=str(claim.webhook_id),
                fault=error.fault,
            )
            await self._snooze(claim)
            return
        text = signing.write_body(claim.body)
        headers = signing.sign(text, message_id=claim.event_id, at=datetime.now(UTC), signing_secrets=signing_secrets)
        began_at = time.perf_counter()
        answer = await self._sender.send(claim.url, text, headers)
        self._metrics.observe(time.perf_counter() - began_at)
        await failpoints.reach("delivery.sent")
        await self._settle(claim, answer)

    async def _settle(self, claim: Claim, answer: Answer) -> None:
        verdict = verdicts.decide(
            answer.result,
            attempt=claim.attempt,
            retry_after_seconds=answer.retry_after_seconds,
            settings=self._settings,
        )

        async def apply(conn: Connection) -> None:
            match verdict:
                case Delivered():
                    await deliveries.finish(conn, claim, answer.result)
                case Dead(gone=gone):
                    await deliveries.bury(conn, claim, answer.result, gone=gone)
                case Again(after_seconds=after_seconds):
                    await deliveries.postpone(conn, claim, answer.result, after_seconds=after_seconds)

        await self._database.persist(apply, for_seconds=_LEASE_MARGIN_SECONDS)
        self._report(claim, verdict, answer.result)

    def _open_secrets(self, claim: Claim) -> list[str]:
        """The current one, and the one before it for as long as both count. Raises SealBroken where the current one
        cannot be opened; the other is done without, because rotating is how a lost master key is got over."""
        webhook_id = str(claim.webhook_id)
        opened = [self._masters.open(claim.sealed_secret, access_key=webhook_id)]
        if claim.sealed_old_secret is not None:
            try:
                opened.append(self._masters.open(claim.sealed_old_secret, access_key=webhook_id))
            except SealBroken as error:
                log.warning(
                    "webhook.old_secret_sealed",
                    message="A webhook's former secret cannot be opened; deliveries are signed with the new one alone.",
                    webhook_id=webhook_id,
                    fault=error.fault,
                )
        return opened

    async def _snooze(self, claim: Claim) -> None:
        result = Result(error_code="secret_sealed", error="The webhook's secret could not be opened.")
        async with self._database.transaction() as conn:
            await deliveries.postpone(conn, claim, result, after_seconds=_SEAL_SNOOZE_SECONDS, outcome="snoozed")
        self._metrics.count("snoozed")

    async def _release(self, claim: Claim) -> None:
        with contextlib.suppress(Fenced, DatabaseUnavailable):
            async with self._database.transaction() as conn:
                await deliveries.postpone(conn, claim, Result(), after_seconds=0, outcome="released")
            self._metrics.count("released")

    def _report(self, claim: Claim, verdict: Verdict, result: Result) -> None:
        told = {**_ids(claim), "attempt": claim.attempt, "status": result.status_code, "code": result.error_code}
        match verdict:
            case Delivered():
                self._metrics.count("delivered")
                log.info("delivery.done", message="An event was delivered.", **told)
            case Dead(gone=gone):
                self._metrics.count("dead")
                log.error("delivery.dead", message="A delivery was given up.", gone=gone, **told)
            case Again(after_seconds=after_seconds):
                self._metrics.count("failed")
                log.warning(
                    "delivery.retry",
                    message="A delivery is tried again.",
                    after_seconds=round(after_seconds, 3),
                    **told,
                )


def _ids(claim: Claim) -> dict[str, object]:
    return {
        "delivery_id": claim.delivery_id,
        "webhook_id": str(claim.webhook_id),
        "event_id": claim.event_id,
        "token": claim.token,
    }


@contextlib.asynccontextmanager
async def delivering(
    settings: WebhookSettings,
    storage: StorageSettings,
    database: Database,
    *,
    master_key: str,
    worker_id: str,
    metrics: WebhookMetrics,
) -> AsyncIterator[None]:
    """Deliver in the background; at the end give what is under way a few seconds. Nothing is delivered by a worker that
    has no master key, because it could not sign."""
    if not master_key or not settings.webhook_slots:
        log.info("webhooks.left", message="This worker delivers no webhooks: it has no master key, or no slots for it.")
        yield
        return
    async with Sender(settings.allowed_networks, timeout_seconds=settings.webhook_timeout_seconds) as sender:
        deliverer = Deliverer(
            settings,
            database=database,
            sender=sender,
            masters=MasterKeys.parse(master_key),
            worker_id=worker_id,
            metrics=metrics,
        )
        listener = Listener(storage, {EVENT_CHANNEL: lambda _: deliverer.wake()})
        background = [asyncio.create_task(deliverer.run()), asyncio.create_task(listener.run())]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.wait(background, timeout=2)
            await deliverer.drain()
