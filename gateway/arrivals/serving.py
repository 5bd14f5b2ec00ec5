"""`safelight events`: a process that reads bucket events from a queue, for storages that cannot push them to us."""

from __future__ import annotations

from typing import Literal

import structlog

from gateway.arrivals.intake import Intake
from gateway.arrivals.minio_list import MinioList
from gateway.arrivals.settling import Settler
from gateway.arrivals.sqs_queue import SqsQueue
from gateway.arrivals.tally import Tally
from gateway.listening import stop_on_signals
from gateway.settings import GatewaySettings
from processors.settings import JobSettings
from processors.vitals import Expose, Vitals, expose_nothing, make_registry, register_process, render_with
from storage.blobs import Blobs
from storage.database import Database
from storage.settings import StorageSettings
from storage.sqs import Queue, QueueSettings

log = structlog.get_logger(__name__)

SourceName = Literal["minio-redis", "sqs"]


async def serve_events(
    source: SourceName,
    settings: GatewaySettings,
    jobs: JobSettings,
    storage: StorageSettings,
    *,
    expose: Expose = expose_nothing,
) -> None:
    """Read that source until SIGTERM or SIGINT; what is in hand then is finished or given back. `expose`
    answers whoever asks for its metrics. Raises WrongKind, NoSuchQueue."""
    stop = stop_on_signals()
    registry = make_registry()
    async with Database(storage) as database, Blobs(storage) as blobs, expose(render_with(registry)):
        registry.register(Vitals("events", database, {"postgres": database, "s3": blobs}))
        register_process(registry)
        tally = Tally(registry)
        settler = Settler(
            database,
            blobs,
            jobs,
            tally,
            derived_bucket=storage.derived_bucket,
            max_upload_bytes=settings.max_upload_bytes,
            concurrency=settings.hook_concurrency,
        )
        intake = Intake(database, settler, tally)
        log.info("events.started", message="Bucket events are being read.", source=source)
        if source == "sqs":
            async with Queue(queue_settings(settings, storage)) as queue:
                await SqsQueue(queue, intake).run(stop)
        else:
            url = settings.events_redis_url or jobs.redis_url
            await MinioList(url, settings.events_redis_key, intake).run(stop)
        log.info("events.stopped", message="Nothing more is read; what was in hand is done or given back.")


def queue_settings(settings: GatewaySettings, storage: StorageSettings) -> QueueSettings:
    """The queue's address and keys: those of the storage where none of its own are set."""
    return QueueSettings(
        url=settings.sqs_queue_url,
        endpoint=settings.sqs_endpoint or None,
        region=settings.sqs_region or storage.s3_region,
        access_key=settings.sqs_access_key or storage.s3_access_key,
        secret_key=settings.sqs_secret_key or storage.s3_secret_key,
    )
