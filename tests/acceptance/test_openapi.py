"""The OpenAPI document is valid, complete and true: what it says is what the running gateway does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.acceptance.stack import ROOT, Api, Stack

# Left out, because true of any API that validates what a schema cannot say or whose addresses overlap:
# - positive_data_acceptance: not every string is a cursor, not all bytes are a photo, not every range lies within one.
# - allow_header_conformance: PUT /v1/photos/{bucket}/{key} also matches the addresses of previews and originals.
# - ensure_resource_availability: the facts of a photo are there once its job has run, not once it is stored.
LEFT_OUT = "positive_data_acceptance,allow_header_conformance,ensure_resource_availability"
HOOK = ("post", "/hooks/bucket-events")  # takes a token of its own, which has no scopes: 401, and never 403
SIGN_IN = ("post", "/v1/session")  # takes a key instead of a token: open, and yet 401
STREAM = "/v1/events"  # never ends, so no answer of it can be judged; tests/integration/test_streams.py does
STANDSTILL = "/pause$"  # what is paused lets requests that wait for photos wait as long as they may: tried by itself
METHODS = ("get", "put", "post", "delete", "patch")


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.read("/openapi.json")
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation by (method, path)."""
    return {
        (method, path): item[method] for path, item in document["paths"].items() for method in METHODS if method in item
    }


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    """By the meta-schema of OpenAPI 3.1, schemas included."""
    assert document["openapi"].startswith("3.1.")
    assert [str(error)[:500] for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_address_of_the_router_is_in_the_document(document: dict[str, Any]) -> None:
    """The paths of the document are those of the tables of routes, no more and no fewer."""
    source = "".join(path.read_text("utf-8") for path in (ROOT / "gateway").rglob("routes.py"))
    rows = re.findall(r'method="(\w+)",\s+path="([^"]+)"', source)
    routed = {(method.lower(), re.sub(r"\{(\w+)(?::[^}]*)?\}", r"{\1}", path)) for method, path in rows}
    assert len(routed) == len(rows) == source.count("handler=")
    assert set(operations(document)) == routed


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    """Each has an id of its own, a summary, a success, its scope, and its errors as problem+json."""
    found = operations(document)
    assert len({item["operationId"] for item in found.values()}) == len(found)
    for (method, path), item in found.items():
        where = f"{method} {path}"
        assert item["summary"], where
        assert any(status.startswith("2") for status in item["responses"]), where
        if (method, path) not in (HOOK, SIGN_IN):
            assert item["security"] or not path.startswith("/v1/"), where
            assert ("401" in item["responses"]) == ("403" in item["responses"]) == bool(item["security"]), where
        for status, answer in item["responses"].items():
            if status.startswith(("4", "5")) and path != "/readyz":
                assert list(answer["content"]) == ["application/problem+json"], f"{where} {status}"


def test_without_a_token_every_protected_operation_is_401(stack: Stack, document: dict[str, Any]) -> None:
    """What the document calls protected is protected, and the rest is open."""
    nobody = stack.client(None)
    for (method, path), item in operations(document).items():
        if (method, path) == SIGN_IN:
            continue
        status = nobody.request(method.upper(), re.sub(r"\{\w+\}", "1", path)).status_code
        assert status == (401 if item["security"] else 200), f"{method} {path}"


@pytest.mark.timeout(300)
def test_the_gateway_does_what_the_document_says(
    stack: Stack, api: Api, document: dict[str, Any], tmp_path: Path
) -> None:
    """Hundreds of generated requests, valid and not, alone and in sequences: no server error, no undocumented status,
    content type or shape, invalid data refused, nothing open without a token."""
    tested, generated = generate(stack, tmp_path, "--exclude-path", STREAM, "--exclude-path-regex", STANDSTILL)
    alone, _ = generate(stack, tmp_path, "--include-path-regex", STANDSTILL)
    assert api.post("/v1/processors/resume").status_code == 200  # other tests need what was paused
    assert generated > 200
    assert (tested, alone) == (len(operations(document)) - 3, 2)


def generate(stack: Stack, folder: Path, *which: str) -> tuple[int, int]:
    """How many operations were tested, by how many generated requests. Fails where one is not as the document says."""
    done = subprocess.run(
        [
            *(
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{stack.connection['http_url']}/openapi.json",
            ),
            *("--header", f"Authorization: Bearer {stack.connection['token']}"),
            *("--checks", "all", "--exclude-checks", LEFT_OUT),
            *which,
            *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "8", "--seed", "1"),
            *("--generation-database", "none", "--request-timeout", "30", "--no-color"),
        ],
        cwd=folder,  # it leaves files where it runs, and no configuration of anybody's may be found
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if done.returncode != 0:
        stack.api.post("/v1/processors/resume")
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
    tested, generated = (re.search(pattern, done.stdout) for pattern in (r"Tested: +(\d+)", r"(\d+) generated"))
    assert tested
    assert generated
    return int(tested[1]), int(generated[1])
