"""POST /hooks/bucket-events: storages and clouds tell here what came and went. Closed unless a token or topic is set.

Answered 2xx with an empty body, and only after the commit; 401 to whoever proves no right; 503 with Retry-After while
Postgres or the storage is away, so that the source comes again. A believed message that is of no use is answered 2xx:
MinIO would repeat it for ever and hold back everything behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web

from gateway import rendering
from gateway.arrivals.intake import Intake
from gateway.arrivals.schemas import UnusableMessagesSchema
from gateway.arrivals.settling import Settler
from gateway.arrivals.tally import Tally
from gateway.arrivals.topics import Topics, TopicsUnavailable
from gateway.context import Context
from gateway.errors import RETRY_AFTER_SECONDS, Problem
from gateway.events.envelopes import Envelope
from gateway.events.opaque import hide_opaque_data, read_opaque_data
from gateway.events.reading import Limit, Reading, Unusable
from gateway.events.sns import Rules
from gateway.metrics import METRICS
from gateway.routing import Call
from storage import samples
from storage.blobs import BlobsUnavailable
from storage.database import DatabaseUnavailable

log = structlog.get_logger(__name__)

MAX_BODY_BYTES: Final = Limit().body_bytes
_WAITING: Final = 256  # requests in one gateway at a time; more are asked to come again
_STRANGERS: Final = 64  # of them such whose right can be told only from their body, while it is read and judged
_STRANGER_SECONDS: Final = 3.0  # that such a body may take
_SAY_SECONDS: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class _Believed:
    """A body that may be acted on."""

    body: bytes
    reading: Reading


class Refusals:
    """Says in the log that somebody was refused, at most every ten seconds: a stranger must not fill the disk."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._said_at = float("-inf")
        self._unsaid = 0

    def note(self, reason: str, remote: str | None) -> None:
        self._tally.refused(reason)
        self._unsaid += 1
        now = time.monotonic()
        if now - self._said_at < _SAY_SECONDS:
            return
        log.warning(
            "bucket_event.refused",
            message="A bucket event was refused. A source that should be believed has the wrong token or topic.",
            reason=reason,
            remote=remote,
            times=self._unsaid,
        )
        self._said_at, self._unsaid = now, 0


class Hook:
    """What one gateway needs to take bucket events."""

    def __init__(self, intake: Intake, topics: Topics, tokens: Sequence[str], refusals: Refusals) -> None:
        self._tokens = [token.encode() for token in tokens]
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._waiting = 0
        self.intake = intake
        self.topics = topics
        self.refusals = refusals

    @property
    def is_open(self) -> bool:
        return bool(self._tokens) or self.topics.are_named

    @property
    def takes_tokens(self) -> bool:
        return bool(self._tokens)

    def opens(self, token: str) -> bool:
        """Whether this is one of our tokens; takes as long for every wrong one."""
        given = token.encode("utf-8", "replace")
        return sum(hmac.compare_digest(given, known) for known in self._tokens) > 0

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Count one request while it is here."""
        if self._waiting >= _WAITING:
            raise _later("Too many bucket events are waiting.")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @contextlib.asynccontextmanager
    async def stranger(self) -> AsyncIterator[None]:
        if self._strangers.locked():
            raise _later("Too many senders without a token in a header are waiting.")
        async with self._strangers:
            yield


HOOK: web.AppKey[Hook] = web.AppKey("bucket_event_hook", Hook)


def open_hook(app: web.Application, context: Context) -> Hook:
    """The hook of one gateway, counting in its metrics."""
    tally = Tally(app[METRICS].registry)
    settler = Settler(
        context.database,
        context.blobs,
        context.jobs,
        tally,
        derived_bucket=context.storage.derived_bucket,
        max_upload_bytes=context.settings.max_upload_bytes,
        concurrency=context.settings.hook_concurrency,
    )
    rules = Rules(
        topic_arns=frozenset(context.settings.hook_sns_topic_arns),
        extra_origins=frozenset(context.settings.hook_sns_origin_names),
    )
    intake = Intake(context.database, settler, tally)
    return Hook(intake, Topics(rules), context.settings.hook_tokens, Refusals(tally))


async def post_bucket_event(call: Call) -> web.StreamResponse:
    """POST /hooks/bucket-events."""
    request, hook = call.request, call.request.app[HOOK]
    if not hook.is_open:
        raise Problem("not_found", "Set SAFELIGHT_HOOK_TOKEN to take bucket events here.")
    token = _given_token(request)
    with hook.turn():
        if token is None:
            async with hook.stranger():
                believed = await _judge_body(call, hook)
        elif hook.opens(token):
            believed = await _judge_sender(call, hook)
        else:
            raise _refuse(hook, request, "wrong_token")
        if believed is not None:
            await _act(hook, believed)
    answer = web.Response()
    if not request.content.is_eof():
        answer.force_close()
    return answer


async def _act(hook: Hook, believed: _Believed) -> None:
    """What fails for a fault of ours would fail each time that its source sends it, and hold up all behind it. Raises
    DatabaseUnavailable, BlobsUnavailable."""
    try:
        await hook.intake.act(believed.reading, believed.body, "webhook")
    except (DatabaseUnavailable, BlobsUnavailable):
        raise
    except Exception:
        log.exception("bucket_event.failed", message="A message failed unexpectedly; it is kept as a sample.")
        await hook.intake.set_aside("failed", believed.body, "webhook")


async def list_unusable(call: Call) -> web.StreamResponse:
    """GET /v1/bucket-events/unusable: what came in and could not be used."""
    async with call.context.database.connection() as conn:
        rows = await samples.list_newest(conn)
    found = [row | {"body": _show(row["body"])} for row in rows]
    return rendering.answer(UnusableMessagesSchema, {"messages": found})


async def _judge_sender(call: Call, hook: Hook) -> _Believed | None:
    """The body of a sender who has shown a token; None where all is done."""
    body, is_whole = await _read(call.request, call.context.settings.chunk_timeout_seconds)
    if not is_whole:
        return _Believed(body=body, reading=Reading(unusable=Unusable.LARGE_BODY))
    reading = await hook.intake.read(body)
    if reading.envelope is not None and not await _believes(call, hook, reading, reading.envelope):
        return None
    return _Believed(body=body, reading=reading)


async def _judge_body(call: Call, hook: Hook) -> _Believed | None:
    """A body that must speak for itself: signed by SNS, or with Ceph's opaqueData in it. None where all is done."""
    body, is_whole = await _read(call.request, min(_STRANGER_SECONDS, call.context.settings.chunk_timeout_seconds))
    reading = await hook.intake.read(body) if is_whole else Reading()
    if reading.envelope is not None:
        goes_on = await _believes(call, hook, reading, reading.envelope)
        return _Believed(body=body, reading=reading) if goes_on else None
    secret = read_opaque_data(body) if is_whole and hook.takes_tokens else None
    if secret is None or not hook.opens(secret):
        raise _refuse(hook, call.request, "no_token" if secret is None else "wrong_opaque_data")
    return _Believed(body=body, reading=reading)


async def _believes(call: Call, hook: Hook, reading: Reading, envelope: Envelope) -> bool:
    """Whether there is more to do with what SNS wrapped: handshakes are done here. A token does not stand in for the
    signature, which names the topic and proves the text. Raises Problem where it is not genuine."""
    try:
        refusal = await hook.topics.check(envelope)
        if refusal is not None:
            raise _refuse(hook, call.request, refusal.value)
        if reading.handshake == "subscribe":
            await hook.topics.confirm(envelope)
            return False
    except TopicsUnavailable as error:
        log.warning("topic.unavailable", message="SNS cannot be asked.", cause=str(error))
        raise _later("SNS cannot be asked for its certificate or its confirmation.") from error
    if reading.handshake == "unsubscribe":
        log.warning("topic.unsubscribed", message="A topic sends no more events here.", topic_arn=envelope.topic_arn)
        return False
    return True


async def _read(request: web.Request, seconds: float) -> tuple[bytes, bool]:
    """The body, and whether it is all of it: it is read no further than its limit."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    return bytes(body), False
    except TimeoutError:
        raise Problem("body_timeout", "Send the event at once.") from None
    return bytes(body), True


def _show(body: bytes) -> str:
    return hide_opaque_data(body).decode("utf-8", "replace").replace("\x00", "\ufffd")


def _given_token(request: web.Request) -> str | None:
    """The token in the header or the address; None where there is none at all."""
    header = request.headers.get("Authorization")
    if header is not None:
        kind, _, rest = header.strip().partition(" ")
        return rest.strip() if kind.lower() == "bearer" else header.strip()
    return request.query.get("token")


def _refuse(hook: Hook, request: web.Request, reason: str) -> Problem:
    hook.refusals.note(reason, request.remote)
    return Problem(
        "unauthorized",
        "Send the header Authorization: Bearer <SAFELIGHT_HOOK_TOKEN>, or an event signed by an allowed SNS topic.",
        headers={"WWW-Authenticate": 'Bearer realm="safelight bucket events"'},
    )


def _later(why: str) -> Problem:
    headers: dict[str, Any] = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return Problem("events_unavailable", f"{why} Nothing was accepted. Send it again in a moment.", headers=headers)
