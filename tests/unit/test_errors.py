"""The one table of problems: complete, used, and rendered as RFC 9457 says."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from gateway import errors
from gateway.errors import PROBLEMS, Problem
from processors.photos import formats
from storage.blobs import BlobChanged, BlobRefused, BlobsUnavailable, NoSuchBlob, NoSuchBucket
from storage.database import DatabaseUnavailable
from storage.memory import MemoryBusy

GATEWAY = Path(errors.__file__).parent
# What the first bytes of a body can be found to be; the gateway passes these codes on.
SNIFFED = {"empty", "not_an_image", "unsupported_format"}


def raised() -> Iterator[tuple[str, str]]:
    """(file, code) of every Problem that the gateway's source makes with a code written out."""
    for file in GATEWAY.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Problem" and node.args:
                choices = [node.args[0].body, node.args[0].orelse] if isinstance(node.args[0], ast.IfExp) else node.args
                if isinstance(choices[0], ast.Constant):
                    yield from ((file.name, str(ast.literal_eval(choice))) for choice in choices[:2] if is_code(choice))


def is_code(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.replace("_", "a").isalpha()


def test_every_problem_that_is_raised_is_in_the_table() -> None:
    """No handler can raise a code that has no status."""
    found = set(raised())
    assert len(found) > 20
    assert {(file, code) for file, code in found if code not in PROBLEMS} == set()


def test_every_problem_in_the_table_is_raised() -> None:
    """A code that nothing raises would be documented and never seen."""
    assert set(PROBLEMS) - SNIFFED - {code for _, code in raised()} == set()
    assert set(formats.CODES) >= SNIFFED


@pytest.mark.parametrize("code", PROBLEMS)
def test_each_problem_is_rendered(code: str) -> None:
    """Each is problem+json with its status, a sentence as title, and what else was said."""
    answer = errors.render(Problem(code, "What to do.", headers={"X-More": "1"}, max_bytes=5))
    content = json.loads(answer.body)  # type: ignore[arg-type]
    assert (answer.status, answer.content_type) == (PROBLEMS[code][0], "application/problem+json")
    assert HTTPStatus(answer.status) >= HTTPStatus.BAD_REQUEST
    assert content["title"].endswith(".")
    assert (content["type"], content["status"]) == (f"urn:safelight:error:{code}", answer.status)
    assert (content["code"], content["detail"], content["max_bytes"]) == (code, "What to do.", 5)
    assert answer.headers["X-More"] == "1"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatabaseUnavailable("x"), "database_unavailable"),
        (BlobsUnavailable("x"), "storage_unavailable"),
        (MemoryBusy(), "too_many_uploads"),
        (NoSuchBucket("x"), "no_such_bucket"),
        (NoSuchBlob("x"), "original_missing"),
        (BlobChanged("x"), "original_missing"),
        (BlobRefused("EntityTooLarge"), "refused_by_storage"),
        (web.HTTPNotFound(), "not_found"),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), "method_not_allowed"),
        (web.HTTPRequestEntityTooLarge(1, 2), "too_large"),
        (web.HTTPBadRequest(), "bad_request"),
    ],
    ids=repr,
)
def test_errors_of_the_layers_below_are_translated(error: Exception, code: str) -> None:
    """Each foreseen exception has its problem, without a line of log; what may pass says when to come again."""
    with capture_logs() as lines:
        problem = errors.translate(error)
    assert (problem.code, lines) == (code, [])
    assert ("Retry-After" in problem.headers) is (problem.status in (429, 503))


def test_an_unforeseen_error_is_logged_under_an_id() -> None:
    """Its own text goes to the log, and an id that is new each time to the client."""
    with capture_logs() as lines:
        first, second = (errors.translate(ValueError("a secret")) for _ in range(2))
    assert (first.status, first.code) == (500, "internal")
    assert first.members["error_id"] != second.members["error_id"]
    assert [line["error_id"] for line in lines] == [first.members["error_id"], second.members["error_id"]]
    assert "a secret" not in json.dumps(first.as_json())
    assert "a secret" in str(lines[0]["exc_info"])


def test_odd_text_can_be_rendered() -> None:
    """A detail with a lone surrogate, as a client's name may hold, does not break the answer."""
    assert b'"detail": "a?b"' in bytes(errors.render(Problem("bad_request", "a\ud800b")).body)  # type: ignore[arg-type]
