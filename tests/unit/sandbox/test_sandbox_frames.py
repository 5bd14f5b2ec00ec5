"""What the parent believes of a child's answer: nothing that was not checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.contract import Artifact, Limits, Options, Outcome, Preset, Source
from processors.sandbox import frames
from processors.sandbox.frames import ProtocolError

ARTIFACT = {
    "preset": "thumb",
    "preset_version": "webp-320-q80-p1",
    "content_type": "image/webp",
    "extension": "webp",
    "width_px": 320,
    "height_px": 240,
    "data_bytes": 4,
}


def outcome(**changes: Any) -> bytes:
    return json.dumps({"verdict": "outcome", "facts": None, "artifacts": [ARTIFACT | changes]}).encode()


def test_an_outcome_survives_the_way_there_and_back() -> None:
    """Packed by the child and parsed by the parent, an outcome is equal to the original."""
    fields = {name: value for name, value in ARTIFACT.items() if name != "data_bytes"}
    original = Outcome(artifacts=(Artifact(data=b"webp", **fields),), facts={"make": "Lumen", "iso": 100})
    frame = frames.pack_outcome(original)
    reply = frames.parse_reply(frame[4:])
    assert frames.header_length(frame[:4]) == len(frame) - 4
    assert (reply.sizes, frames.outcome(reply, [b"webp"])) == ((4,), original)


def test_options_survive_the_way_to_the_child() -> None:
    """Presets and limits arrive as they were sent."""
    options = Options(
        presets=(Preset(name="a", max_side_px=10, format="jpeg", quality=50, pipeline=3),),
        limits=Limits(max_pixels=7),
    )
    frame = frames.pack_request("preview", Source(data=b"abc", size_bytes=9, complete=False), options)
    header = frames.parse(frame[4:])
    assert frames.parse_options(header) == options
    assert (header["data_bytes"], header["size_bytes"], header["complete"]) == (3, 9, False)


@pytest.mark.parametrize("prefix", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\x10\0\x01"])
def test_an_impossible_length_is_refused_before_reading(prefix: bytes) -> None:
    """4 GiB, nothing, or one byte over the cap: no buffer is made for it."""
    with pytest.raises(ProtocolError):
        frames.header_length(prefix)


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "../../etc"},
        {"preset": "a\nb"},
        {"preset": None},
        {"preset_version": "x" * 65},
        {"content_type": "text/html; charset=x"},
        {"extension": "j/pg"},
        {"width_px": 0},
        {"width_px": True},
        {"height_px": 1e3},
        {"data_bytes": -1},
        {"data_bytes": frames.MAX_ARTIFACT_BYTES + 1},
    ],
)
def test_an_artifact_with_an_impossible_field_is_refused(changes: dict[str, Any]) -> None:
    """Names, types, sizes and sides are held to what a sound child sends."""
    frames.parse_reply(outcome())
    with pytest.raises(ProtocolError):
        frames.parse_reply(outcome(**changes))


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"verdict":"fine"}',
        b'{"verdict":"outcome","facts":{"a":NaN},"artifacts":[]}',
        b'{"verdict":"outcome","facts":{"a":1e999},"artifacts":[]}',
        b'{"verdict":"outcome","facts":{"a":"\\u0000"},"artifacts":[]}',
        b'{"verdict":"outcome","facts":{"\\ud800":1},"artifacts":[]}',
        b'{"verdict":"outcome","facts":[],"artifacts":[]}',
        b'{"verdict":"outcome","facts":null,"artifacts":{}}',
        b'{"verdict":"outcome","facts":' + b'{"a":' * 50 + b"1" + b"}" * 50 + b',"artifacts":[]}',
        b'{"verdict":"unprocessable","code":"NOT A CODE","detail":""}',
        b'{"verdict":"unprocessable","code":"ok"}',
        b'{"verdict":"failed","type":"a b","traceback":""}',
        json.dumps({"verdict": "outcome", "facts": None, "artifacts": [ARTIFACT] * 2}).encode(),
        json.dumps({"verdict": "outcome", "facts": None, "artifacts": [ARTIFACT] * 65}).encode(),
    ],
)
def test_an_answer_that_no_sound_child_sends_is_refused(body: bytes) -> None:
    """Not JSON, not the verdicts, or facts that Postgres would choke on: ProtocolError, nothing else."""
    with pytest.raises(ProtocolError):
        frames.parse_reply(body)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    """No answer, however broken, raises anything but ProtocolError."""
    try:
        frames.parse_reply(body)
    except ProtocolError as error:
        assert str(error)  # noqa: PT017  the point is that no other class escapes
