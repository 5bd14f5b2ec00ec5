"""What processors derived: artifacts (rows that name objects in S3) and facts (JSON). Functions take a connection
first."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.database import Connection


@dataclass(frozen=True, kw_only=True)
class StoredArtifact:
    """A derived object that lies in S3."""

    preset: str
    preset_version: str
    bucket: str
    key: str
    etag: str
    sha256: bytes
    size_bytes: int
    content_type: str
    width_px: int
    height_px: int


async def put_artifacts(conn: Connection, object_id: uuid.UUID, artifacts: Iterable[StoredArtifact]) -> None:
    await conn.executemany(
        """
        insert into artifact (object_id, preset, preset_version, bucket, key, etag, sha256, size_bytes, content_type,
                              width_px, height_px)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        on conflict (object_id, preset) do update set
          preset_version = excluded.preset_version, bucket = excluded.bucket, key = excluded.key, etag = excluded.etag,
          sha256 = excluded.sha256, size_bytes = excluded.size_bytes, content_type = excluded.content_type,
          width_px = excluded.width_px, height_px = excluded.height_px, created_at = now()
        """,
        [
            (
                object_id,
                item.preset,
                item.preset_version,
                item.bucket,
                item.key,
                item.etag,
                item.sha256,
                item.size_bytes,
                item.content_type,
                item.width_px,
                item.height_px,
            )
            for item in artifacts
        ],
    )


async def put_facts(
    conn: Connection, object_id: uuid.UUID, processor: str, version: int, facts: Mapping[str, Any]
) -> None:
    await conn.execute(
        """
        insert into facts (object_id, processor, version, facts) values ($1, $2, $3, $4)
        on conflict (object_id, processor) do update set
          version = excluded.version, facts = excluded.facts, created_at = now()
        """,
        object_id,
        processor,
        version,
        dict(facts),
    )
    if processor == "exif":
        await conn.execute(
            "update object set taken_at = $2, camera = $3 where id = $1", object_id, _taken_at(facts), _camera(facts)
        )


async def list_artifacts(conn: Connection, object_ids: list[uuid.UUID]) -> list[dict[str, Any]]:
    rows = await conn.fetch("select * from artifact where object_id = any($1) order by object_id, width_px", object_ids)
    return [dict(row) for row in rows]


async def get_artifact(conn: Connection, object_id: uuid.UUID, preset: str) -> dict[str, Any] | None:
    row = await conn.fetchrow("select * from artifact where object_id = $1 and preset = $2", object_id, preset)
    return dict(row) if row else None


async def get_facts(conn: Connection, object_id: uuid.UUID) -> dict[str, Any]:
    """Facts by processor."""
    rows = await conn.fetch("select processor, facts from facts where object_id = $1", object_id)
    return {row["processor"]: row["facts"] for row in rows}


def _taken_at(facts: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(facts["taken_at_local"]).replace(tzinfo=None)
    except (KeyError, TypeError, ValueError):
        return None


def _camera(facts: Mapping[str, Any]) -> str | None:
    make, model = facts.get("make") or "", facts.get("model") or ""
    return (model if model.lower().startswith(make.lower()) else f"{make} {model}").strip() or None
