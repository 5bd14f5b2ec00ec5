"""Webhooks by API and by command line: made, changed, tried, rotated, looked into, redelivered; and real workers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner

from gateway.app import create_app
from gateway.settings import GatewaySettings
from processors.webhooks.settings import WebhookSettings
from safelight.cli import app
from storage import credentials, sealing
from storage.credentials import Credential
from storage.database import Database
from tests.integration.programs import Stage
from tests.integration.receiving import Receiver
from tests.integration.stage import add_photo, fetch, in_transaction, job_settings, storage_settings, until, value

MASTER_KEY = sealing.generate()
LOCAL = "127.0.0.0/8"
Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
async def admin(database: Database) -> Credential:
    """A key of all scopes."""
    credential = credentials.generate()
    scopes = ["read", "write", "admin"]
    await in_transaction(database, partial(credentials.create, credential=credential, name="ann", scopes=scopes))
    return credential


@pytest.fixture
async def ask(
    aiohttp_client: Any, redis_url: str, postgres_dsn: str, blobs: object, admin: Credential
) -> AsyncIterator[Ask]:
    """Asks a gateway of this process with the key of all scopes; (status, JSON)."""
    gateway = create_app(
        GatewaySettings(master_key=MASTER_KEY),
        job_settings(redis_url),
        storage_settings(postgres_dsn),
        WebhookSettings(webhook_allow=LOCAL, max_webhooks=3),
    )
    client: TestClient[Any, Any] = await aiohttp_client(gateway)

    async def send(method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {admin.token}"}
        async with client.request(method, f"/v1/webhooks{path}", json=body, params=query, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_type.endswith("json") else None

    yield send
    await client.close()


@pytest.fixture
def worker_stage(stage: Stage) -> Callable[..., Any]:
    """Starts real workers that deliver to this machine, and quickly again."""
    return partial(
        stage.start_worker,
        master_key=MASTER_KEY,
        webhook_allow=LOCAL,
        webhook_backoff_base_seconds="0.05",
        webhook_backoff_cap_seconds="0.2",
        webhook_timeout_seconds="2",
    )


async def delivered(database: Database, number: int) -> bool:
    return bool(await value(database, "select count(*) = $1 from delivery where state = 'delivered'", number))


async def test_a_webhook_is_made_shown_changed_and_deleted(ask: Ask) -> None:
    """Its secret is in the first answer and in no other; what is not named in a change stays."""
    status, made = await ask(
        "POST", "", {"url": "https://example.org/hook", "name": "Gallery", "types": ["photo.ready"], "prefix": "a/"}
    )
    assert status == 201
    assert made.pop("secret").startswith("whsec_")
    assert (made["enabled"], made["types"], made["bucket"], made["prefix"]) == (True, ["photo.ready"], None, "a/")
    assert made["created_by"].startswith("ann (")
    assert await ask("GET", f"/{made['id']}") == (200, made)
    assert await ask("GET", "") == (200, {"webhooks": [made]})
    status, changed = await ask("PATCH", f"/{made['id']}", {"types": [], "bucket": "photos", "enabled": False})
    assert status == 200
    assert (changed["url"], changed["types"], changed["bucket"], changed["prefix"]) == (
        made["url"],
        [],
        "photos",
        "a/",
    )
    assert (changed["enabled"], changed["disabled_reason"]) == (False, "asked")
    assert (await ask("PATCH", f"/{made['id']}", {"enabled": True}))[1]["disabled_at"] is None
    assert await ask("DELETE", f"/{made['id']}") == (204, None)
    for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/rotate"), ("GET", "/deliveries")):
        status, problem = await ask(method, f"/{made['id']}{path}", {} if method in ("PATCH", "POST") else None)
        assert (status, problem["code"]) == (404, "no_such_webhook")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "https://user:pass@example.org/",
        "https://example.org/#part",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "http://93.184.216.34/",
        "https://example.org:0/",
        "https://exa mple.org/",
        "https://",
        "//example.org/",
        "https://b\u00fccher.example/",
    ],
)
async def test_a_url_that_may_not_be_is_refused_with_the_reason(ask: Ask, url: str) -> None:
    """Wrong schemes, users, closed addresses and what is no URL never become a webhook, new or changed."""
    status, problem = await ask("POST", "", {"url": url})
    assert (status, problem["code"]) == (422, "invalid_request")
    assert problem["errors"]["url"][0].endswith(".")
    _, made = await ask("POST", "", {"url": "https://example.org/"})
    assert (await ask("PATCH", f"/{made['id']}", {"url": url}))[0] == 422


async def test_there_may_be_so_many_webhooks(ask: Ask) -> None:
    """One too many is refused, also when several are made at once."""
    answers = await asyncio.gather(*(ask("POST", "", {"url": "https://example.org/"}) for _ in range(6)))
    assert sorted(status for status, _ in answers) == [201] * 3 + [409] * 3


async def test_a_test_event_goes_the_way_of_all_others(
    ask: Ask, database: Database, worker_stage: Callable[..., Any]
) -> None:
    """Made by API, signed and sent by a real worker, seen in the log with its attempt; and events of photos too."""
    async with Receiver() as receiver:
        _, made = await ask("POST", "", {"url": receiver.url, "types": ["photo.stored"]})
        receiver.secret = made["secret"]
        worker_stage()
        status, found = await ask("POST", f"/{made['id']}/test")
        assert (status, found["state"], found["type"]) == (202, "ready", "webhook.test")
        await add_photo(database, processors=())
        await until(partial(delivered, database, 2), seconds=20, what="both are delivered")
        assert {item.body["type"] for item in receiver.received} == {"webhook.test", "photo.stored"}
        status, log = await ask("GET", f"/{made['id']}/deliveries/{found['id']}")
        assert (status, log["state"], log["status_code"], log["event_id"]) == (200, "delivered", 204, found["event_id"])
        (attempt,) = log["attempts"]
        assert (attempt["number"], attempt["outcome"], attempt["retry_at"]) == (1, "delivered", None)
        assert log["body"] == next(item.body for item in receiver.received if item.id == found["event_id"])


async def test_the_log_is_paged_filtered_and_acted_on(ask: Ask, database: Database) -> None:
    """Newest first, each once; dead ones by state; redelivered alone or together, discarded once."""
    _, made = await ask("POST", "", {"url": "https://example.org/"})
    webhook_id = uuid.UUID(made["id"])
    async with database.connection() as conn:
        await conn.execute(
            "insert into delivery (webhook_id, event_id, type, body, state, finished_at)"
            " select $1, n::text, 'photo.ready', '{}', case when n % 2 = 0 then 'dead' else 'ready' end,"
            " case when n % 2 = 0 then now() end from generate_series(1, 9) as n",
            webhook_id,
        )
    log = f"/{webhook_id}/deliveries"
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 4}
    while True:
        _, page = await ask("GET", log, **query)
        seen += [row["event_id"] for row in page["deliveries"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == [str(number) for number in range(9, 0, -1)]
    _, dead = await ask("GET", log, state="dead")
    assert [row["event_id"] for row in dead["deliveries"]] == ["8", "6", "4", "2"]
    ids = {row["event_id"]: row["id"] for row in dead["deliveries"]}
    assert (await ask("POST", f"{log}/{ids['8']}/redeliver"))[1]["state"] == "ready"
    status, problem = await ask("POST", f"{log}/{ids['8']}/redeliver")
    assert (status, problem["code"], problem["state"]) == (409, "delivery_not_finished", "ready")
    assert (await ask("POST", f"{log}/{ids['6']}/discard"))[1]["state"] == "discarded"
    assert (await ask("POST", f"{log}/{ids['6']}/discard"))[0] == 409
    status, done = await ask("POST", f"{log}/redeliver", {"limit": 1})
    assert (status, done) == (200, {"redelivered": 1, "ids": [ids["2"]]})
    assert (await ask("POST", f"{log}/redeliver", {"state": "discarded"}))[1]["ids"] == [ids["6"]]
    assert (await ask("GET", f"/{webhook_id}"))[1]["deliveries"] == {"ready": 8, "dead": 1}
    other = (await ask("POST", "", {"url": "https://example.org/"}))[1]["id"]
    for path in (f"/{other}/deliveries/{ids['4']}", f"{log}/0", f"{log}/99999999999999999999"):
        assert (await ask("GET", path))[0] == 404


async def test_a_gateway_without_a_master_key_makes_no_webhooks(
    aiohttp_client: Any, redis_url: str, postgres_dsn: str, blobs: object, admin: Credential
) -> None:
    """It says what to set, and keeps nothing that it could not seal."""
    client = await aiohttp_client(
        create_app(GatewaySettings(), job_settings(redis_url), storage_settings(postgres_dsn))
    )
    headers = {"Authorization": f"Bearer {admin.token}"}
    async with client.post("/v1/webhooks", json={"url": "https://example.org/"}, headers=headers) as answer:
        problem = await answer.json()
    assert (answer.status, problem["code"]) == (503, "no_master_key")
    assert "SAFELIGHT_MASTER_KEY" in problem["detail"]


@pytest.mark.parametrize("point", ["delivery.claimed", "delivery.sent"])
async def test_a_worker_killed_over_a_delivery_costs_nothing(
    ask: Ask, database: Database, worker_stage: Callable[..., Any], tmp_path: Path, point: str
) -> None:
    """Killed before it sent or after: when the lease ends another worker sends, so it comes at least once, and the
    log shows the attempt that was lost."""
    async with Receiver() as receiver:
        _, made = await ask("POST", "", {"url": receiver.url})
        receiver.secret = made["secret"]
        doomed = worker_stage(failpoint=f"{point}:kill:1", failpoint_dir=str(tmp_path))
        await add_photo(database, processors=())

        async def dead() -> bool:
            return doomed.exit_code is not None

        await until(dead, seconds=20, what="the worker was killed")
        assert len(receiver.received) == (1 if point == "delivery.sent" else 0)
        assert await fetch(database, "select state, attempt from delivery") == [{"state": "running", "attempt": 1}]
        worker_stage()
        async with database.connection() as conn:
            await conn.execute("update delivery set lease_until = now()")
        await until(partial(delivered, database, 1), seconds=20, what="it is delivered")
    rows = await fetch(database, "select outcome from delivery_attempt order by token")
    assert [row["outcome"] for row in rows] == ["expired", "delivered"]
    assert len(set(receiver.ids)) == 1


async def run_command(dsn: str, *words: str, **more: str) -> tuple[int, str, str]:
    """One command in a thread of this process, whose start costs seconds; (exit code, output, errors)."""
    environment = {
        **{name: "" for name in os.environ if name.startswith("SAFELIGHT_")},
        "SAFELIGHT_POSTGRES_DSN": dsn,
        "SAFELIGHT_MASTER_KEY": MASTER_KEY,
        "SAFELIGHT_WEBHOOK_ALLOW": LOCAL,
        **more,
    }
    done = await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", *words], env=environment)
    return done.exit_code, done.stdout, done.stderr


async def test_the_command_line_does_it_all(
    database: Database, postgres_dsn: str, worker_stage: Callable[..., Any]
) -> None:
    """create, list, show, test, deliveries, delivery, redeliver, rotate, disable, discard, delete, with a real worker
    between; --json is for programs, and what cannot be is one sentence and exit code 2."""
    run = partial(run_command, postgres_dsn)
    async with Receiver(reply=lambda _: web.Response(status=500, text="full")) as receiver:
        code, output, _ = await run("create", receiver.url, "--types", "photo.ready", "--name", "desk", "--json")
        made = json.loads(output)
        assert (code, made["types"], made["name"]) == (0, ["photo.ready"], "desk")
        receiver.secret = made["secret"]
        worker_stage(webhook_attempts="2")
        assert json.loads((await run("test", made["id"][:8], "--json"))[1])["delivery"] > 0
        await until(lambda: value(database, "select state = 'dead' from delivery"), seconds=20, what="it was given up")
        code, output, _ = await run("deliveries", made["id"], "--state", "dead", "--json")
        (row,) = json.loads(output)
        assert (code, row["status_code"], row["attempts_in_all"]) == (0, 500, 2)
        code, output, _ = await run("delivery", made["id"], str(row["id"]))
        assert code == 0
        assert "webhook.test" in output
        assert output.count("500 bad_status") == 2
        receiver.reply = lambda _: web.Response()
        assert json.loads((await run("redeliver", made["id"], "--dead", "--json"))[1]) == {"redelivered": [row["id"]]}
        await until(partial(delivered, database, 1), seconds=20, what="it is delivered")
        code, output, _ = await run("rotate", made["id"], "--json")
        rotated = json.loads(output)
        assert rotated["secret"] != made["secret"]
        assert rotated["old_secret_until"]
        assert (await run("test", made["id"]))[0] == 0
        await until(partial(delivered, database, 2), seconds=20, what="the second test is delivered")
        both = receiver.received[-1]
        assert Webhook(rotated["secret"]).verify(both.text, both.headers)["type"] == "webhook.test"
    assert (await run("disable", made["id"]))[1] == "It is disabled.\n"
    switched = [json.loads((await run(verb, made["id"], "--json"))[1])["enabled"] for verb in ("enable", "disable")]
    assert switched == [True, False]
    code, output, _ = await run("list")
    assert code == 0
    assert "disabled" in output
    assert "desk" in output
    code, output, _ = await run("show", made["id"])
    assert "photo.ready" in output
    assert (await run("discard", made["id"], str(row["id"])))[0] == 2
    assert json.loads((await run("delete", made["id"], "--json"))[1]) == {"id": made["id"], "deleted": True}
    code, _, errors = await run("show", made["id"])
    assert code == 2
    assert errors == "There is no such webhook. `safelight webhooks list` shows those that there are.\n"
    code, _, errors = await run("create", "http://10.0.0.1/")
    assert (code, errors.count("\n")) == (2, 1)
    code, _, errors = await run("create", "https://example.org/", SAFELIGHT_MASTER_KEY="")
    assert (code, "SAFELIGHT_MASTER_KEY is not set" in errors) == (2, True)


async def test_a_change_of_the_master_key_takes_webhooks_along(ask: Ask, database: Database, postgres_dsn: str) -> None:
    """`safelight keys reseal` seals their secrets anew; with the new key alone they still open."""
    _, made = await ask("POST", "", {"url": "https://example.org/"})
    await ask("POST", f"/{made['id']}/rotate")
    fresh = sealing.generate()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "safelight", "keys", "reseal"),
        env={
            "PATH": os.defpath,
            "SAFELIGHT_POSTGRES_DSN": postgres_dsn,
            "SAFELIGHT_MASTER_KEY": f"{fresh},{MASTER_KEY}",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, output.decode()) == (0, "Sealed anew: 1; with the first already: 0; not opened: 0.\n")
    (row,) = await fetch(database, "select sealed_secret, sealed_old_secret from webhook")
    masters = sealing.MasterKeys.parse(fresh)
    assert masters.open(row["sealed_old_secret"], access_key=made["id"]) == made["secret"]
    assert masters.open(row["sealed_secret"], access_key=made["id"]).startswith("whsec_")
