"""Every line that the product logs: a stable event, one sentence for people, by reading the calls.

Ids and numbers stand beside them as fields, so that a line can be searched for without knowing the sentence.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "processors", "safelight", "storage")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*\.[a-z0-9]+(_[a-z0-9]+)*")
VARIABLE = "x"  # stands for what is put in at run time


def text_of(node: ast.expr) -> list[str]:
    """The strings that an expression can be; none where that cannot be told."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(str(part.value) if isinstance(part, ast.Constant) else VARIABLE for part in parts)]
        case ast.IfExp(body=one, orelse=other):
            return [*text_of(one), *text_of(other)]
        case _:
            return []


def calls(source: str) -> Iterator[ast.Call]:
    """`log.info(...)`, and `(log.debug if quiet else log.info)(...)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and any(map(_is_log, _functions(node.func))):
            yield node


def _functions(node: ast.expr) -> list[ast.expr]:
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def _is_log(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="log"), attr=attr):
            return attr in LEVELS
        case _:
            return False


def problems(source: str) -> list[str]:
    found = []
    for call in calls(source):
        events = text_of(call.args[0]) if len(call.args) == 1 else []
        if not events or not all(EVENT.fullmatch(event) for event in events):
            found.append(f"line {call.lineno}: its first and only argument must be an event such as photo.stored")
        given = next((word.value for word in call.keywords if word.arg == "message"), None)
        if given is None:
            found.append(f"line {call.lineno}: no message")
        elif any(not re.fullmatch(r"[A-Z].*[.?]", sentence, re.DOTALL) for sentence in text_of(given)):
            found.append(f"line {call.lineno}: the message must be a sentence")
    return found


def test_every_log_line_has_an_event_and_a_sentence() -> None:
    """In all four packages."""
    found, lines = [], 0
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        source = path.read_text("utf-8")
        lines += len(list(calls(source)))
        found += [f"{path.relative_to(ROOT)}, {problem}" for problem in problems(source)]
    assert found == []
    assert lines > 80


@pytest.mark.parametrize(
    "line",
    [
        'log.info("Photo stored", message="A photo was stored.")',
        'log.info("photo_stored", message="A photo was stored.")',
        'log.info("photo.stored")',
        'log.info("photo.stored", message="stored")',
        'log.info("photo.stored %s", 7, message="A photo was stored.")',
        'log.info(event, message="A photo was stored.")',
        '(log.debug if quiet else log.info)("photo.stored", message="stored")',
    ],
)
def test_a_line_that_breaks_the_rule_is_found(line: str) -> None:
    """Each way to break it is noticed, and the sound form is not."""
    assert problems(line)
    assert not problems('log.info("photo.stored", message="A photo was stored.", photo_id=1)')
