"""A worker's lifetime: open everything once, listen, beat, drain on SIGTERM, close. What a job does is the runner's.

Idle, it ends at once. Busy, it takes nothing new and finishes what it runs within grace_seconds; the rest is ready
again for other workers before the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import structlog
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver

from processors.broker import RUN_JOB, Broker, create_broker
from processors.dispatch import Dispatcher
from processors.metrics import register_worker
from processors.retry import RetryMiddleware
from processors.runner import Runner
from processors.sandbox.pool import Sandbox
from processors.sequencer import Sequencer
from processors.settings import JobSettings
from processors.vitals import Expose, expose_nothing, make_registry, render_with
from processors.webhooks.deliverer import delivering
from processors.webhooks.metrics import WebhookMetrics
from processors.webhooks.settings import WebhookSettings
from storage import failpoints, workers
from storage.blobs import Blobs
from storage.database import Database, DatabaseUnavailable
from storage.settings import StorageSettings
from storage.workers import WorkerRow

log = structlog.get_logger(__name__)

_READING_AHEAD = 2  # jobs that fetch or put while the children are busy with others


async def work(
    settings: JobSettings,
    storage: StorageSettings,
    webhooks: WebhookSettings,
    *,
    master_key: str = "",
    expose: Expose = expose_nothing,
) -> None:
    """Run a worker until SIGTERM or SIGINT. Without `master_key` it delivers no webhooks. `expose` answers whoever asks
    for its metrics."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    row = WorkerRow(
        id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
        host=socket.gethostname(),
        pid=os.getpid(),
        version=version("safelight"),
        slots=settings.worker_slots,
    )
    sandbox = Sandbox(
        slots=settings.worker_slots,
        wall_seconds=settings.child_wall_seconds,
        memory_bytes=settings.child_memory_bytes,
        photos_per_child=settings.child_photos,
    )
    async with contextlib.AsyncExitStack() as stack:
        # Children start on another core while the S3 client is made on this one.
        _, database, blobs = await asyncio.gather(
            stack.enter_async_context(sandbox),
            stack.enter_async_context(Database(storage)),
            stack.enter_async_context(Blobs(storage)),
        )
        runner = Runner(
            settings,
            worker_id=row.id,
            database=database,
            blobs=blobs,
            sandbox=sandbox,
            derived_bucket=storage.derived_bucket,
        )
        broker = create_broker(settings, find_due=runner.find_due)
        broker.add_middlewares(RetryMiddleware(settings, database))

        @broker.task(task_name=RUN_JOB)
        async def run_job(job_id: int) -> None:
            await runner.run_job(job_id)

        dispatcher, registry = Dispatcher(settings, database, broker), make_registry()
        register_worker(registry, row.slots, runner, sandbox, dispatcher, database, broker)
        await stack.enter_async_context(expose(render_with(registry)))
        await stack.enter_async_context(
            delivering(
                webhooks,
                storage,
                database,
                master_key=master_key,
                worker_id=row.id,
                metrics=WebhookMetrics(registry),
            )
        )
        await _serve(settings, row, database, broker, dispatcher, runner, stop)


async def _serve(  # noqa: PLR0917 - everything that a worker has
    settings: JobSettings,
    row: WorkerRow,
    database: Database,
    broker: Broker,
    dispatcher: Dispatcher,
    runner: Runner,
    stop: asyncio.Event,
) -> None:
    async def beat() -> None:
        await runner.beat()

    async def say_alive() -> None:
        async with database.connection() as conn:
            await workers.say_alive(conn, row, stopping=stop.is_set())

    async def say_stopping() -> None:
        await stop.wait()  # an idle worker ends before its next heartbeat would say so
        with contextlib.suppress(DatabaseUnavailable):
            await say_alive()

    background = [
        asyncio.create_task(say_stopping()),
        asyncio.create_task(dispatcher.run()),
        asyncio.create_task(Sequencer(database).run()),
        asyncio.create_task(_repeat(beat, settings.lease_seconds / 3)),
        asyncio.create_task(_repeat(say_alive, settings.heartbeat_seconds)),
        asyncio.create_task(_repeat(broker.tidy, settings.redispatch_seconds * 3)),
    ]
    log.info("worker.started", message="The worker is listening.", worker=row.id, slots=row.slots)
    try:
        await _listen(settings, broker, stop)
        log.info("worker.stopping", message="The worker takes nothing new.", worker=row.id, running=len(runner.held))
    finally:
        await failpoints.reach("shutdown.begin")
        await runner.release_all()
        for task in background:
            task.cancel()
        await asyncio.wait(background, timeout=2)  # a frozen Postgres must not keep the worker from ending
        await _leave(row, database, broker)
        log.info("worker.stopped", message="The worker has stopped.", worker=row.id)


async def _listen(settings: JobSettings, broker: Broker, stop: asyncio.Event) -> None:
    """Take messages until told to stop, then wait for what is running, grace_seconds at most. A receiver that fails is
    started anew: no error of the road ends a worker."""
    pause_seconds = 0.1
    while not stop.is_set():
        receiver = Receiver(
            broker,
            max_async_tasks=settings.worker_slots + _READING_AHEAD,
            max_prefetch=0,
            ack_type=AcknowledgeType.WHEN_RECEIVED,
            validate_params=False,
            wait_tasks_timeout=settings.grace_seconds,
        )
        try:
            await receiver.listen(stop)
        except Exception:
            log.exception("worker.receiver_failed", message="The receiver failed and is started anew.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await stop.wait()
            pause_seconds = min(5, pause_seconds * 2)


async def _repeat(action: Callable[[], Awaitable[None]], every_seconds: float) -> None:
    """Until cancelled; an outage or an unforeseen error only skips a turn, for a worker without heartbeats loses every
    longer job."""
    while True:
        try:
            await action()
        except DatabaseUnavailable:
            pass
        except Exception:
            log.exception("worker.turn_failed", message="Background work failed; its next turn follows.")
        await asyncio.sleep(every_seconds)


async def _leave(row: WorkerRow, database: Database, broker: Broker) -> None:
    await broker.leave()
    with contextlib.suppress(DatabaseUnavailable, TimeoutError):
        async with asyncio.timeout(1), database.connection() as conn:
            await workers.leave(conn, row.id)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1):
            await broker.shutdown()
