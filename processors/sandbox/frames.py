"""How parent and child speak: 4 bytes of length, a JSON header of that length, then the raw bytes it
announces.

Never pickle: the child has decoded a stranger's bytes and may be anyone's. What the parent reads is checked
before it is believed (`parse_reply`); what the child reads comes from the parent and is trusted. No I/O
here.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from processors.contract import Artifact, Limits, Options, Outcome, Preset, Source

LENGTH: Final = struct.Struct(">I")
MAX_HEADER_BYTES: Final = 1 << 20
EXIT_OUT_OF_MEMORY: Final = 75  # a child ends with it that could not even take the photo in
MAX_ARTIFACTS: Final = 64
MAX_ARTIFACT_BYTES: Final = 256 << 20  # all artifacts of one photo together
_MAX_DEPTH: Final = 12
_MAX_SIDE_PX: Final = 65_535
_MAX_TRACEBACK: Final = 8_192

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,8}")
_CONTENT_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,63}")
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TYPE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")


class ProtocolError(Exception):
    """The other side sent what no sound child sends."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A child's checked answer. `sizes` are the bytes of the artifacts that follow, in order; `verdict`
    says which of the other fields mean anything: outcome, unprocessable, incomplete, memory or failed.
    """

    verdict: str
    code: str = ""
    detail: str = ""
    facts: Mapping[str, Any] | None = None
    artifacts: tuple[Mapping[str, Any], ...] = ()
    sizes: tuple[int, ...] = ()


def pack(header: Mapping[str, Any]) -> bytes:
    """Length and header. Raises ValueError for what JSON cannot say (NaN) or a header that is too long."""
    body = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_HEADER_BYTES:
        raise ValueError(f"a frame's header may have {MAX_HEADER_BYTES} bytes, not {len(body)}")
    return LENGTH.pack(len(body)) + body


def header_length(prefix: bytes) -> int:
    """The header's length, from the first 4 bytes. Raises ProtocolError before anything that long is read."""
    (length,) = LENGTH.unpack(prefix)
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise ProtocolError(f"a header of {length} bytes")
    return int(length)


def parse(body: bytes) -> dict[str, Any]:
    """The header's JSON object. Raises ProtocolError for anything else, NaN, lone surrogates or too deep a
    nesting.
    """
    try:
        header = json.loads(body, parse_constant=_refuse_constant)
        _check_json(header, _MAX_DEPTH)
    except (ValueError, RecursionError):
        raise ProtocolError("a header that is not plain JSON") from None
    if not isinstance(header, dict):
        raise ProtocolError("a header that is no object")
    return header


def pack_request(processor: str, source: Source, options: Options) -> bytes:
    """The request's frame; the source's bytes follow it."""
    return pack(
        {
            "processor": processor,
            "data_bytes": len(source.data),
            "size_bytes": source.size_bytes,
            "complete": source.complete,
            "presets": [asdict(preset) for preset in options.presets],
            "limits": asdict(options.limits),
        }
    )


def parse_options(header: Mapping[str, Any]) -> Options:
    """The options of a request (child's side)."""
    presets = tuple(Preset(**preset) for preset in header["presets"])
    return Options(presets=presets, limits=Limits(**header["limits"]))


def pack_outcome(outcome: Outcome) -> bytes:
    """The frame of a good answer; the artifacts' bytes follow it, in order (child's side)."""
    described = [
        {
            "preset": artifact.preset,
            "preset_version": artifact.preset_version,
            "content_type": artifact.content_type,
            "extension": artifact.extension,
            "width_px": artifact.width_px,
            "height_px": artifact.height_px,
            "data_bytes": len(artifact.data),
        }
        for artifact in outcome.artifacts
    ]
    facts = None if outcome.facts is None else dict(outcome.facts)
    return pack({"verdict": "outcome", "facts": facts, "artifacts": described})


def parse_reply(body: bytes) -> Reply:
    """A child's answer, every field checked. Raises ProtocolError."""
    header = parse(body)
    verdict = header.get("verdict")
    if verdict in ("incomplete", "memory"):
        return Reply(verdict=verdict)
    if verdict == "unprocessable":
        return Reply(verdict=verdict, code=_text(header, "code", _CODE), detail=_free_text(header, "detail", 500))
    if verdict == "failed":
        return Reply(
            verdict=verdict,
            code=_text(header, "type", _TYPE_NAME),
            detail=_free_text(header, "traceback", _MAX_TRACEBACK),
        )
    if verdict == "outcome":
        return _parse_outcome(header)
    raise ProtocolError("an unknown verdict")


def outcome(reply: Reply, blobs: list[bytes]) -> Outcome:
    """The Outcome of a reply whose artifacts' bytes have been read."""
    artifacts = tuple(Artifact(data=data, **fields) for fields, data in zip(reply.artifacts, blobs, strict=True))
    return Outcome(artifacts=artifacts, facts=reply.facts)


def _parse_outcome(header: Mapping[str, Any]) -> Reply:
    facts, listed = header.get("facts"), header.get("artifacts")
    if facts is not None and not isinstance(facts, dict):
        raise ProtocolError("facts that are no object")
    if not isinstance(listed, list) or len(listed) > MAX_ARTIFACTS:
        raise ProtocolError("artifacts that are no short list")
    artifacts = tuple(_artifact(entry) for entry in listed)
    sizes = tuple(_integer(entry, "data_bytes", MAX_ARTIFACT_BYTES) for entry in listed)
    if sum(sizes) > MAX_ARTIFACT_BYTES:
        raise ProtocolError("artifacts that are too large")
    if len({artifact["preset"] for artifact in artifacts}) != len(artifacts):
        raise ProtocolError("two artifacts of one preset")
    return Reply(verdict="outcome", facts=facts, artifacts=artifacts, sizes=sizes)


def _artifact(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ProtocolError("an artifact that is no object")
    return {
        "preset": _text(entry, "preset", _NAME),
        "preset_version": _text(entry, "preset_version", _VERSION),
        "content_type": _text(entry, "content_type", _CONTENT_TYPE),
        "extension": _text(entry, "extension", _EXTENSION),
        "width_px": _integer(entry, "width_px", _MAX_SIDE_PX),
        "height_px": _integer(entry, "height_px", _MAX_SIDE_PX),
    }


def _text(fields: Mapping[str, Any], name: str, allowed: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not allowed.fullmatch(value):
        raise ProtocolError(f"an impossible {name}")
    return value


def _free_text(fields: Mapping[str, Any], name: str, limit: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"an impossible {name}")
    return value[-limit:]


def _integer(fields: Mapping[str, Any], name: str, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise ProtocolError(f"an impossible {name}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _check_json(value: Any, depth: int) -> None:
    """Postgres takes neither NUL nor lone surrogates, JSON no infinity (1e999 parses to one)."""
    if depth < 0:
        raise ValueError("too deep")
    if isinstance(value, str):
        value.encode()
        if "\0" in value:
            raise ValueError("NUL")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    elif isinstance(value, list):
        for item in value:
            _check_json(item, depth - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_json(key, depth - 1)
            _check_json(item, depth - 1)
