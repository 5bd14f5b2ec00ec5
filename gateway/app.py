"""The gateway put together: the one place of assembly. Routes, middlewares, and what is opened and closed with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import web

from gateway import catalog, errors, openapi
from gateway.arrivals.receiving import HOOK, open_hook
from gateway.attempts import Attempts
from gateway.auth import Gatekeeper
from gateway.context import CONTEXT, Context
from gateway.direct.sweeping import Bookmark
from gateway.direct.sweeping import sweep as sweep_uploads
from gateway.errors import Problem
from gateway.follower import Follower
from gateway.limits import Limits
from gateway.listening import stop_on_signals, url_of, write_ports
from gateway.metrics import METRICS, Metrics
from gateway.reconcile import reconciling
from gateway.repairs import Site
from gateway.routes import ROUTES
from gateway.routing import bind
from gateway.sessions import Sessions
from gateway.settings import GatewaySettings
from gateway.turns import HOUSEKEEPING_SECONDS, Turns
from gateway.ui import pages
from gateway.waiting import PhotoWatch
from processors.broker import create_broker
from processors.dispatch import Dispatcher
from processors.sequencer import Sequencer
from processors.settings import JobSettings
from processors.vitals import Expose, expose_nothing
from processors.webhooks.settings import WebhookSettings
from storage import deliveries, events, idempotency, multiparts, workers
from storage.blobs import BlobRefused, Blobs, BlobsUnavailable
from storage.database import EVENT_CHANNEL, JOB_CHANNEL, PHOTO_CHANNEL, Database, DatabaseUnavailable, Listener
from storage.memory import MemoryBudget, return_freed_buffers
from storage.settings import StorageSettings

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BACKGROUND_END_SECONDS = 2.0
_IDEMPOTENCY_HOURS = 24.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(
    settings: GatewaySettings,
    jobs: JobSettings,
    storage: StorageSettings,
    webhooks: WebhookSettings | None = None,
) -> web.Application:
    """The REST door. What it needs is opened when it starts and closed when it stops."""
    app = web.Application(middlewares=[_trace], client_max_size=1 << 20)

    async def life(app: web.Application) -> AsyncIterator[None]:
        async with open_context(settings, jobs, storage, webhooks or WebhookSettings()) as context:
            app[CONTEXT] = context
            app[METRICS].attend(context)
            app[HOOK] = open_hook(app, context)
            site = Site(database=context.database, blobs=context.blobs, settings=settings, jobs=jobs, storage=storage)

            def took_turn() -> None:
                app[METRICS].note_turn()
                context.turns.end_reconcile()

            async with reconciling(site, app[METRICS].count_findings, took_turn):
                yield

    async def end_streams(app: web.Application) -> None:
        await app[CONTEXT].follower.close()

    app[METRICS] = Metrics()
    app.on_shutdown.append(end_streams)
    app.cleanup_ctx.append(life)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, bind(route))
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, bind(route))
    openapi.add_routes(app)
    pages.add_routes(app)
    return app


@contextlib.asynccontextmanager
async def open_context(
    settings: GatewaySettings, jobs: JobSettings, storage: StorageSettings, webhooks: WebhookSettings
) -> AsyncIterator[Context]:
    """Open the clients of one process and keep its background work going."""
    async with Database(storage) as database, Blobs(storage) as blobs:
        broker = create_broker(jobs)
        await broker.startup()
        dispatcher = Dispatcher(jobs, database, broker)
        watch, follower, sequencer = PhotoWatch(), Follower(database), Sequencer(database)
        limits = Limits(settings, jobs.redis_url)
        gatekeeper = Gatekeeper(database, derived_bucket=storage.derived_bucket)
        context = Context(
            settings=settings,
            jobs=jobs,
            storage=storage,
            webhooks=webhooks,
            database=database,
            blobs=blobs,
            broker=broker,
            dispatcher=dispatcher,
            gatekeeper=gatekeeper,
            sessions=Sessions(database, gatekeeper, hours=settings.session_hours),
            attempts=Attempts(),
            watch=watch,
            follower=follower,
            memory=MemoryBudget(settings.upload_memory_bytes, wait_seconds=settings.upload_queue_seconds),
            limits=limits,
            turns=Turns(),
            gateway_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
        )

        def hear_photo(photo_id: str) -> None:
            watch.hear(photo_id)
            sequencer.wake()

        listener = Listener(
            storage,
            {
                PHOTO_CHANNEL: hear_photo,
                JOB_CHANNEL: lambda _: dispatcher.wake(),
                EVENT_CHANNEL: lambda _: follower.wake(),
            },
        )
        background = [
            asyncio.create_task(dispatcher.run()),
            asyncio.create_task(listener.run()),
            asyncio.create_task(sequencer.run()),
            asyncio.create_task(follower.run()),
            asyncio.create_task(_keep_house(context)),
            asyncio.create_task(_keep_uploads(context)),
        ]
        try:
            yield context
        finally:
            for task in background:
                task.cancel()
            # Not gather: a statement that a frozen Postgres never answers does not end when it is cancelled.
            await asyncio.wait(background, timeout=_BACKGROUND_END_SECONDS)
            await limits.close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await broker.shutdown()


async def serve(
    settings: GatewaySettings,
    jobs: JobSettings,
    storage: StorageSettings,
    webhooks: WebhookSettings,
    *,
    ports_file: str | None,
    expose: Expose = expose_nothing,
) -> None:
    """Run the gateway until SIGTERM or SIGINT. `ports_file`: where to write the addresses once it listens. `expose`
    answers whoever asks for its metrics without a key."""
    return_freed_buffers()
    stop = stop_on_signals()
    app = create_app(settings, jobs, storage, webhooks)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # a compressed body could be a bomb
        keepalive_timeout=30,
        max_headers=64,
        max_line_size=32 << 10,  # a key of 1,024 characters may be 12 kB in a URL
        lingering_time=2,
        read_bufsize=32 << 10,  # an upload that waits for its turn holds little
        shutdown_timeout=jobs.grace_seconds,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.http_host, settings.http_port, backlog=512)
        await site.start()
        host, port = runner.addresses[0][:2]
        url = url_of("http", host, port)
        log.info("gateway.started", message="The gateway is listening.", url=url)
        if ports_file:
            write_ports(Path(ports_file), http_url=url)
        async with expose(lambda: app[METRICS].render(app[CONTEXT])):
            await stop.wait()
        log.info("gateway.stopping", message="The gateway finishes what is in flight.")
    finally:
        await runner.cleanup()


@web.middleware
async def _trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, time it, and answer every error in the one form."""
    given = request.headers.get("X-Request-Id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    started_at = time.perf_counter()
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - the one place where anything may end
            problem = errors.translate(error)
            response = errors.render(problem)
            _explain(request, problem, error)
        seconds = time.perf_counter() - started_at
        _log(request, response, seconds)
        request.app[METRICS].count_request(request, response, seconds)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
    elif response.status >= 500:
        response.force_close()
    return response


def _explain(request: web.Request, problem: Problem, error: Exception) -> None:
    if problem.status == 503:
        log.warning(
            "request.unavailable", message=problem.detail, code=problem.code, path=request.path, cause=repr(error)
        )


def _log(request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    quiet = request.path in ("/healthz", "/readyz")
    (log.debug if quiet else log.info)(
        "request.done",
        message="A request was answered.",
        method=request.method,
        path=request.path,
        status=response.status,
        seconds=round(seconds, 4),
    )


async def _keep_house(context: Context) -> None:
    """What must be done now and then by somebody: buckets made, leftovers deleted, old rows forgotten."""
    made, bookmark = False, Bookmark()
    while True:
        try:
            # Each time: previews can be made again, and their jobs wait for it. That of originals is made at the start
            # alone, because an empty one in its place would look as if all photos were lost.
            await context.blobs.ensure_bucket(context.storage.derived_bucket)
            if not made:
                await context.blobs.ensure_bucket(context.storage.default_bucket)
                made = True
            while await catalog.sweep_garbage(context):
                pass
            async with context.database.connection() as conn:
                await idempotency.prune(conn, older_than_hours=_IDEMPOTENCY_HOURS)
                await workers.prune(conn, older_than_seconds=3600)
            async with context.database.transaction() as conn:
                await events.prune(conn, older_than_hours=context.settings.events_hours)
                await deliveries.prune(conn, older_than_hours=context.webhooks.webhook_log_hours)
            # The last: a bucket that refuses us must not keep the others from their turn.
            await sweep_uploads(context, bookmark)
            context.turns.end_housekeeping()
        except (BlobsUnavailable, BlobRefused, DatabaseUnavailable) as error:
            log.debug("housekeeping.skipped", message="Something needed is away.", error=repr(error))
        except Exception:
            log.exception("housekeeping.failed", message="The housekeeping failed; its next turn follows.")
        await asyncio.sleep(HOUSEKEEPING_SECONDS if made else 0.5)


async def _keep_uploads(context: Context) -> None:
    """Say that this gateway's multipart uploads are alive. Apart from the housekeeping, which can take longer than the
    minute after which uploads count as dangling, and which an outage of the storage cuts short."""
    while True:
        try:
            async with context.database.connection() as conn:
                await multiparts.refresh(conn, context.gateway_id)
        except DatabaseUnavailable:
            pass
        except Exception:
            log.exception("uploads.unkept", message="Uploads could not be said to be alive; the next turn follows.")
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
