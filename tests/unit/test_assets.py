"""The dashboard's files: named by what they hold, complete, and without anything that its policy would forbid."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from gateway.ui import pages
from gateway.ui.assets import Assets, load_assets

STATIC = Path(pages.__file__).parent / "static"


@pytest.fixture
def assets() -> Assets:
    return load_assets(STATIC)


@pytest.fixture
async def client(aiohttp_client: Any) -> TestClient[Any, Any]:
    app = web.Application()
    pages.add_routes(app)
    made: TestClient[Any, Any] = await aiohttp_client(app, auto_decompress=False)
    return made


def test_the_folder_is_named_by_all_that_lies_in_it(tmp_path: Path) -> None:
    """Another byte in any file is another address; the same files have the same one."""
    (tmp_path / "index.html").write_text('<script src="{ui}/a.js"></script>')
    (tmp_path / "a.js").write_text("1")
    first = load_assets(tmp_path)
    assert first.shell.content == f'<script src="/ui/{first.version}/a.js"></script>'.encode()
    assert load_assets(tmp_path) == first
    (tmp_path / "a.js").write_text("2")
    assert load_assets(tmp_path).version != first.version


def test_every_file_that_is_named_is_there(assets: Assets) -> None:
    """What the shell loads and what modules import exists, and every file is used by something."""
    shell = assets.shell.content.decode()
    named = set(re.findall(rf'"/ui/{assets.version}/([^"]+)"', shell))
    for name, asset in assets.files.items():
        if name.endswith(".js"):
            named |= set(re.findall(r'(?:from|import\()\s*"\./([^"]+)"', asset.content.decode()))
    assert named == set(assets.files)


def test_nothing_is_inline_or_from_elsewhere(assets: Assets) -> None:
    """No inline script, style or handler, no markup made of strings, and no address but our own."""
    shell = assets.shell.content.decode()
    assert re.findall(r"<style|<script(?! type=\"module\" src=)|\son\w+=|\sstyle=", shell) == []
    everything = {"index.html": assets.shell, **assets.files}
    for name, asset in everything.items():
        text = asset.content.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), name
        outside = set(re.findall(r"https?://[^\s\"']+", text)) - {"http://www.w3.org/2000/svg"}
        assert outside == set(), name


async def test_files_are_kept_for_ever_and_pages_asked_for_anew(client: TestClient[Any, Any], assets: Assets) -> None:
    """A file is immutable under its version's address and nowhere else; a page is revalidated by its ETag."""
    path = f"/ui/{assets.version}/app.js"
    async with client.get(path, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("gzip", "Accept-Encoding")
        assert gzip.decompress(await answer.read()) == assets.files["app.js"].content
    async with client.get(path, headers={"Accept-Encoding": "gzip;q=0, br"}) as answer:
        assert "Content-Encoding" not in answer.headers
        assert await answer.read() == assets.files["app.js"].content
    for wrong in (f"/ui/{'0' * 16}/app.js", f"/ui/{assets.version}/..%2fpages.py", f"/ui/{assets.version}/index.html"):
        async with client.get(wrong) as answer:
            assert answer.status == 404, wrong
    async with client.get("/queue") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Content-Security-Policy"] == pages.POLICY
        tag = answer.headers["ETag"]
    for path in ("/", "/photos/anything", "/queue", "/jobs", "/dead"):
        async with client.get(path, headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.read()) == (304, b""), path


def test_the_policy_closes_everything_but_ourselves() -> None:
    """No script, style or connection from elsewhere, no frames around us, no forms out, no unsafe word."""
    rules = dict(rule.strip().split(" ", 1) for rule in pages.POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert (rules["script-src"], rules["style-src"], rules["connect-src"]) == ("'self'", "'self'", "'self'")
    assert (rules["frame-ancestors"], rules["base-uri"], rules["form-action"]) == ("'none'", "'none'", "'none'")
    assert "unsafe" not in pages.POLICY
    assert rules["require-trusted-types-for"] == "'script'"
