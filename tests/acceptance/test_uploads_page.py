"""The examples of docs/uploads.md, run as they stand there: a page of another origin in a real browser, a phone's
script that goes on where it was, and curl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from safelight.embedded.folder import choose_port
from tests import photos
from tests.acceptance.stack import ROOT, Api, Stack, wait_for
from tests.chromium import open_chromium

EXAMPLE = re.compile(r"^```\w+\n(?:# |// |<!-- )([\w.]+)(?: -->)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MIB = 1 << 20


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every example that is named in its first line."""
    folder = tmp_path_factory.mktemp("examples")
    found = dict(EXAMPLE.findall((ROOT / "docs" / "uploads.md").read_text("utf-8")))
    assert set(found) == {"app.py", "index.html", "upload.js", "phone.py", "curl.sh"}
    for name, text in found.items():
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture
def app(stack: Stack, examples: Path, tmp_path: Path) -> Iterator[str]:
    """Port of the example's server, which holds a key that may write and read, and is an origin of its own."""
    port = choose_port()
    environment = {
        **os.environ,
        "PORT": str(port),
        "SAFELIGHT_URL": stack.connection["http_url"],
        "SAFELIGHT_TOKEN": stack.make_key("read,write")["token"],
    }
    with (tmp_path / "app.log").open("w") as log:
        process = subprocess.Popen([sys.executable, examples / "app.py"], env=environment, stdout=log, stderr=log)
    try:
        api = Api(f"http://127.0.0.1:{port}", None)
        wait_for(lambda: _answers(api), "the example's server listens")
        yield str(port)
    finally:
        process.kill()
        process.wait()


def _answers(api: Api) -> bool:
    try:
        return api.get("/").ok
    except OSError:
        return False


@pytest.fixture
def page() -> Iterator[Page]:
    with open_chromium() as browser:
        yield browser.new_page()


def allow(stack: Stack, origin: str) -> None:
    """What the page says to do for an origin. (SeaweedFS takes no notifications by S3, which the command tells.)"""
    backend = stack.connection["backend"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SAFELIGHT_")},
        "SAFELIGHT_S3_ENDPOINT": backend["endpoint"],
        "SAFELIGHT_S3_ACCESS_KEY": backend["access_key"],
        "SAFELIGHT_S3_SECRET_KEY": backend["secret_key"],
        "SAFELIGHT_DERIVED_BUCKET": stack.connection["derived_bucket"],
    }
    command = [sys.executable, "-m", "safelight", "setup", "bucket", "photos", "--origin", origin]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    rules = stack.s3.get_bucket_cors(Bucket="photos")["CORSRules"]
    assert [rule["AllowedOrigins"] for rule in rules] == [[origin]], done.stdout + done.stderr


@pytest.mark.needs_chromium
@pytest.mark.parametrize("method", ["put", "post"])
def test_a_page_of_another_origin_uploads_directly(
    stack: Stack, app: str, page: Page, s3: Any, tmp_path: Path, method: str
) -> None:
    """Chromium sends the photo to the storage itself, across origins, by PUT and by form; completed by the page's own
    server it is ready, byte for byte; a file that is no photo is shown as rejected, with the reason."""
    allow(stack, f"http://127.0.0.1:{app}")
    good, bad = tmp_path / f"größe {method}.jpg", tmp_path / f"story {method}.jpg"
    good.write_bytes(photos.make_jpeg(seed=len(method)))
    bad.write_text("Once upon a time there was no photo. " * 9)
    asked: list[tuple[str, str]] = []
    page.on("request", lambda request: asked.append((request.method, request.url)))
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{app}/")
    if method == "post":
        page.get_by_label("as a form").check()
    page.get_by_label("Photos").set_input_files([good, bad])
    expect(page.locator("li").first).to_have_text(f"{good.name}: ready", timeout=60_000)
    expect(page.locator("li").last).to_contain_text(f"{bad.name}: rejected: The file does not begin like any image")
    assert complaints == []
    backend = stack.connection["backend"]["endpoint"]
    assert {sent for sent, url in asked if url.startswith(backend)} >= {method.upper()}
    assert not [url for _, url in asked if url.startswith(stack.connection["http_url"])]
    listed = {item["filename"]: item for item in stack.api.read("/v1/photos", limit=10)["photos"]}
    stored = listed[good.name]
    assert s3.get_object(Bucket="photos", Key=stored["key"])["Body"].read() == good.read_bytes()
    assert (stored["status"], listed[bad.name]["rejection"]["code"]) == ("ready", "not_an_image")


@pytest.mark.needs_chromium
def test_a_page_of_an_origin_that_is_not_named_is_kept_out(stack: Stack, app: str, page: Page, tmp_path: Path) -> None:
    """The browser sends nothing to the storage for a page whose origin the CORS rule does not name."""
    allow(stack, f"http://127.0.0.1:{app}")
    path = tmp_path / "stranger.jpg"
    path.write_bytes(photos.make_jpeg(64, 48))
    page.goto(f"http://localhost:{app}/")
    page.get_by_label("Photos").set_input_files(path)
    expect(page.locator("li")).to_have_text("stranger.jpg: The storage could not be reached.", timeout=60_000)
    (upload, *_) = stack.api.read("/v1/uploads", limit=1)["uploads"]
    assert (upload["filename"], upload["status"]) == ("stranger.jpg", "open")
    assert upload["key"] not in stack.list_keys("photos", "uploads/")


def test_a_phone_goes_on_where_it_was(stack: Stack, app: str, examples: Path, s3: Any, tmp_path: Path) -> None:
    """Of an upload whose first part had arrived before the app was ended, only the others are sent; run once more it is
    another photo."""
    path = tmp_path / "mountains.jpg"
    path.write_bytes(photos.padded(photos.make_jpeg(640, 480), 11 * MIB))
    wanted = {"method": "multipart", "filename": path.name, "size_bytes": 11 * MIB, "part_bytes": 5 * MIB}
    upload = stack.api.post("/v1/uploads", json=wanted).json()
    with path.open("rb") as file:
        part = stack.client(None)._session.put(upload["parts"][0]["url"], data=file.read(5 * MIB), timeout=30)
    assert part.status_code == 200
    (tmp_path / "mountains.jpg.upload").write_text(upload["id"])
    command = [sys.executable, examples / "phone.py", path]
    done = [
        subprocess.run(
            command,
            env={**os.environ, "APP_URL": f"http://127.0.0.1:{app}", "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout.split("\n")
        for _ in range(2)
    ]
    assert done[0][:2] == ["part 2 of 3", "part 3 of 3"]
    assert done[1][:3] == ["part 1 of 3", "part 2 of 3", "part 3 of 3"]
    ids = [lines[-2].removeprefix("ready ") for lines in done]
    assert ids[0] != ids[1]
    assert stack.api.read(f"/v1/uploads/{upload['id']}")["photo_id"] == ids[0]
    for photo_id in ids:
        key = stack.api.read(f"/v1/photos/{photo_id}")["key"]
        assert s3.get_object(Bucket="photos", Key=key)["Body"].read() == path.read_bytes()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_three_commands_of_curl_upload_a_photo(stack: Stack, examples: Path, tmp_path: Path) -> None:
    """The shell lines of the page open an upload, send it and complete it."""
    path = tmp_path / "curl.png"
    path.write_bytes(photos.make_png(64, 48))
    done = subprocess.run(
        ["sh", examples / "curl.sh", path],
        env={
            **os.environ,
            "NO_PROXY": "127.0.0.1",
            "SAFELIGHT_URL": stack.connection["http_url"],
            "SAFELIGHT_TOKEN": stack.connection["token"],
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "ready"), done.stderr
    assert stack.api.read("/v1/photos", limit=1)["photos"][0]["content_type"] == "image/png"
