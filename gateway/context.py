"""What every handler may reach: the settings and the clients that were opened once for this process."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from gateway.attempts import Attempts
from gateway.auth import Gatekeeper
from gateway.follower import Follower
from gateway.limits import Limits
from gateway.sessions import Sessions
from gateway.settings import GatewaySettings
from gateway.turns import Turns
from gateway.waiting import PhotoWatch
from processors.broker import Broker
from processors.dispatch import Dispatcher
from processors.settings import JobSettings
from processors.webhooks.settings import WebhookSettings
from storage.blobs import Blobs
from storage.database import Database
from storage.memory import MemoryBudget
from storage.settings import StorageSettings


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: GatewaySettings
    jobs: JobSettings
    storage: StorageSettings
    webhooks: WebhookSettings
    database: Database
    blobs: Blobs
    broker: Broker
    dispatcher: Dispatcher
    gatekeeper: Gatekeeper
    sessions: Sessions
    attempts: Attempts
    watch: PhotoWatch
    follower: Follower
    memory: MemoryBudget
    limits: Limits
    turns: Turns
    gateway_id: str


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
