"""The promise of the whole: nothing accepted is lost, and every effect happens once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import random
from datetime import datetime
from functools import partial
from pathlib import Path

import aiohttp
import redis.asyncio as redis

from storage import credentials
from storage.blobs import Blobs
from storage.database import Database
from tests.integration.programs import Program, Stage, read_address
from tests.integration.stage import fetch, until, value
from tests.photos import make_jpeg

PHOTOS = 200
KILLS = 10
FLUSHES = {3, 7}  # before these kills
LEASE_SECONDS = 3
PRESETS = ("preview", "thumb")


async def test_no_job_is_lost_while_workers_die_and_redis_forgets(
    stage: Stage, database: Database, blobs: Blobs, redis_url: str, bucket_prefix: str
) -> None:
    """200 uploads through a real gateway while one of two workers is killed -9 ten times and Valkey is flushed twice:
    every photo becomes ready, with one artifact set and one successful run per job, and a killed worker's jobs are due
    again within lease + 1 s."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    token = await make_key(database)
    _, ports = stage.start_gateway()
    workers = [stage.start_worker(), stage.start_worker()]
    url = await address(ports)
    permits = asyncio.Semaphore(0)
    uploads = asyncio.create_task(upload_all(url, token, seed, permits))
    killed = await destroy(stage, workers, database, redis_url, chance, permits)
    accepted = await uploads

    async def drained() -> bool:
        return not await value(database, "select count(*) from job where state in ('ready', 'running')")

    await until(drained, seconds=60, what="every job has ended")
    assert len(killed) >= KILLS
    await check_photos(database, accepted)
    await check_jobs(database)
    await check_artifacts(database, blobs, bucket_prefix)
    await check_reruns(database, killed)
    assert stage.unexpected() == []


async def make_key(database: Database) -> str:
    credential = credentials.generate()
    async with database.connection() as conn:
        await credentials.create(conn, credential, name="survival", scopes=["read", "write"])
    return credential.token


async def address(ports: Path) -> str:
    async def written() -> str:
        return read_address(ports)

    url = await until(written, seconds=20, what="the gateway listens")
    async with aiohttp.ClientSession(url) as session:

        async def ready() -> bool:
            async with session.get("/readyz") as answer:
                return answer.status == 200

        await until(ready, seconds=20, what="the gateway is ready")
    return url


async def upload_all(url: str, token: str, seed: int, permits: asyncio.Semaphore) -> dict[str, str]:
    """Upload PHOTOS different photos, four at a time, each when a permit is given. Returns the sha256 that each id was
    answered for."""
    accepted: dict[str, str] = {}
    numbers = iter(range(PHOTOS))

    async def upload(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            await permits.acquire()
            body = await asyncio.to_thread(make_jpeg, 160, 120, noise=20, seed=seed + number)
            form = aiohttp.FormData()
            form.add_field("file", body, filename=f"{number}.jpg", content_type="image/jpeg")
            async with session.post("/v1/photos", data=form) as answer:
                content = await answer.json()
                assert answer.status == 201, content
            (found,) = content["photos"]
            assert found["sha256"] == hashlib.sha256(body).hexdigest()
            accepted[found["id"]] = found["sha256"]

    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as session:
        await asyncio.gather(*(upload(session) for _ in range(4)))
    assert len(accepted) == PHOTOS
    return accepted


async def destroy(
    stage: Stage,
    workers: list[Program],
    database: Database,
    redis_url: str,
    chance: random.Random,
    permits: asyncio.Semaphore,
) -> list[tuple[int, int, datetime]]:
    """Permit some uploads, kill a worker in the midst of a job and start another in its place, KILLS times; flush
    Valkey meanwhile. Returns (job, token, when) of the runs that were cut off."""
    cut: list[tuple[int, int, datetime]] = []
    for number in range(KILLS):
        for _ in range(PHOTOS // KILLS):
            permits.release()
        if number in FLUSHES:
            async with redis.Redis.from_url(redis_url) as client:
                await until(partial(client.xlen, stage.stream), seconds=20, what="messages to lose")
                await client.flushall()
        running = await until(partial(runs, database, workers), seconds=30, what=f"kill {number}: a worker runs a job")
        victim = chance.choice(sorted(running, key=workers.index))
        victim.process.kill()
        at = await value(database, "select clock_timestamp()")
        victim.process.wait(10)
        cut += [(job_id, token, at) for job_id, token in running[victim]]
        workers[workers.index(victim)] = stage.start_worker()
    return cut


async def runs(database: Database, workers: list[Program]) -> dict[Program, list[tuple[int, int]]]:
    """(job, token) of what each living worker runs now, if it runs anything."""
    found: dict[Program, list[tuple[int, int]]] = {}
    for row in await fetch(database, "select id, token, worker from job where state = 'running'"):
        for worker in workers:
            if f"-{worker.pid}-" in row["worker"]:
                found.setdefault(worker, []).append((row["id"], row["token"]))
    return found


async def check_photos(database: Database, accepted: dict[str, str]) -> None:
    rows = await fetch(database, "select id, status, sha256, settled_at from object")
    assert {str(row["id"]): row["sha256"].hex() for row in rows} == accepted
    assert {row["status"] for row in rows} == {"ready"}
    assert all(row["settled_at"] for row in rows)


async def check_jobs(database: Database) -> None:
    """Two jobs per photo, each done by exactly one successful run; what else ran was cut off by a kill."""
    rows = await fetch(database, "select processor, state, outcome, attempt, crashes from job")
    assert len(rows) == 2 * PHOTOS
    assert {(row["state"], row["outcome"]) for row in rows} == {("done", "ok")}
    assert {(row["attempt"], row["crashes"]) for row in rows} == {(1, 0)}
    ends = await fetch(database, "select job_id, array_agg(outcome order by token) as ends from job_attempt group by 1")
    assert len(ends) == 2 * PHOTOS
    for row in ends:
        assert row["ends"][-1] == "ok"
        assert set(row["ends"][:-1]) <= {"expired"}, row


async def check_artifacts(database: Database, blobs: Blobs, bucket_prefix: str) -> None:
    """S3 holds exactly the derived objects that the database names, one of each preset per photo, and facts of each."""
    rows = await fetch(database, "select object_id, preset, key, etag, sha256 from artifact")
    assert len(rows) == len(PRESETS) * PHOTOS
    assert {row["preset"] for row in rows} == set(PRESETS)
    assert await value(database, "select count(*) from facts") == PHOTOS
    listed: dict[str, str] = {}
    pages = blobs._client.get_paginator("list_objects_v2").paginate(Bucket=f"{bucket_prefix}-derived")
    async for page in pages:
        listed |= {item["Key"]: item["ETag"].strip('"') for item in page.get("Contents", ())}
    assert listed == {row["key"]: row["etag"] for row in rows}


async def check_reruns(database: Database, cut: list[tuple[int, int, datetime]]) -> None:
    """The runs that a kill cut off were declared lost within lease + 1 s, and their jobs ran again. A run whose result
    was committed in the instant of the kill was not cut off."""
    lost = 0
    for job_id, token, at in cut:
        (row,) = await fetch(
            database, "select outcome, ended_at from job_attempt where job_id = $1 and token = $2", job_id, token
        )
        if row["outcome"] == "ok":
            assert row["ended_at"] <= at
            continue
        assert row["outcome"] == "expired"
        assert (row["ended_at"] - at).total_seconds() <= LEASE_SECONDS + 1
        lost += 1
    assert lost >= KILLS // 2
    assert await value(database, "select count(*) from job where state = 'running' and lease_until < now()") == 0
