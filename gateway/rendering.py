"""Rows of the database as the JSON that clients see, written with the schemas of gateway.schemas."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web
from marshmallow import Schema

from processors.settings import JobSettings
from storage import deadletters, facts, objects
from storage.database import Connection

_dumpers: dict[type[Schema], Schema] = {}


def answer(
    schema: type[Schema], content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer, written with the schema. Never stored by caches: it changes while jobs run."""
    dumper = _dumpers.setdefault(schema, schema())
    return web.json_response(
        dumper.dump(content), status=status, headers={"Cache-Control": "no-store", **(headers or {})}
    )


async def load_photo(
    conn: Connection, photo_id: uuid.UUID, settings: JobSettings, *, traces: bool
) -> dict[str, Any] | None:
    """One photo with its facts, jobs and artifacts; None where there is none."""
    row = await objects.get(conn, photo_id)
    if row is None:
        return None
    (photo,) = await load_photos(conn, [row], settings, traces=traces)
    return {**photo, "facts": await facts.get_facts(conn, photo_id)}


async def load_photos(
    conn: Connection, rows: list[dict[str, Any]], settings: JobSettings, *, traces: bool
) -> list[dict[str, Any]]:
    """Object rows with their jobs and artifacts. `traces`: whether errors show tracebacks."""
    ids = [row["id"] for row in rows]
    jobs: dict[uuid.UUID, list[dict[str, Any]]] = {item: [] for item in ids}
    artifacts: dict[uuid.UUID, list[dict[str, Any]]] = {item: [] for item in ids}
    for job in await deadletters.list_of_objects(conn, ids):
        jobs[job["object_id"]].append({**show_job(job, traces=traces), "url": f"/v1/jobs/{job['id']}"})
    for artifact in await facts.list_artifacts(conn, ids):
        url = preview_url(artifact["object_id"], artifact["preset"])
        artifacts[artifact["object_id"]].append({**artifact, "url": url})
    return [
        {**row, "jobs": jobs[row["id"]], "artifacts": artifacts[row["id"]], "links": _links(row, settings)}
        for row in rows
    ]


def show_job(job: dict[str, Any], *, traces: bool) -> dict[str, Any]:
    """A job or an attempt; without tracebacks unless the reader may see them."""
    error = job["error"]
    if error and not traces:
        error = {key: value for key, value in error.items() if key != "traceback"}
    return {**job, "error": error}


def preview_url(photo_id: uuid.UUID, preset: str) -> str:
    return f"/v1/photos/{photo_id}/previews/{quote(preset)}"


def _links(row: dict[str, Any], settings: JobSettings) -> dict[str, Any]:
    """Where its parts are, or will be once its jobs are done."""
    photo_id, here = row["id"], f"/v1/photos/{row['id']}"
    presets = settings.previews_for(row["bucket"], row["key"])
    return {
        "self": here,
        "original": f"{here}/original",
        "exif": f"{here}/exif",
        "previews": {preset.name: preview_url(photo_id, preset.name) for preset in presets},
    }
