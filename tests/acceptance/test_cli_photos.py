"""put, get, ls and why, as somebody types them, against a running Safelight."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import photos
from tests.acceptance.stack import Api, Finished, Stack, wait_for


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with photos in folders, and what is no photo."""
    for name, width in (("a.jpg", 64), ("day 1/b.jpg", 65), ("day 1/ü#?.jpg", 66)):
        path = tmp_path / "album" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(photos.make_jpeg(width, 48))
    (tmp_path / "album" / "notes.txt").write_text("no photo")
    return tmp_path / "album"


def lines(done: Finished) -> list[str]:
    """What a command that must succeed printed."""
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_a_folder_goes_in_and_comes_out(stack: Stack, album: Path, bucket: str, tmp_path: Path) -> None:
    """Every photo of it is stored under its path, with previews; what is no photo is left out and counted; originals
    and previews come back as they are, to files, to a folder and to a pipe."""
    done = stack.command("put", str(album), "--bucket", bucket, "--prefix", "trip/", "--wait")
    keys = ["trip/album/a.jpg", "trip/album/day 1/b.jpg", "trip/album/day 1/ü#?.jpg"]
    assert lines(done) == [f"{bucket}/{key}" for key in keys]
    assert "no photos: 1 files" in done.stderr.decode()
    assert stack.list_keys(bucket) == sorted(keys)
    out = tmp_path / "out"
    out.mkdir()
    lines(stack.command("get", *(f"{bucket}/{key}" for key in keys), "--output", str(out)))
    assert (out / "ü#?.jpg").read_bytes() == (album / "day 1/ü#?.jpg").read_bytes()
    (thumb,) = lines(stack.command("get", f"{bucket}/{keys[0]}", "--preset", "thumb", "-o", str(out)))
    assert Path(thumb) == out / "a.thumb.webp"
    assert Path(thumb).read_bytes()[8:12] == b"WEBP"
    piped = stack.command("get", f"{bucket}/{keys[1]}", "-o", "-")
    assert piped.stdout == (album / "day 1/b.jpg").read_bytes()
    assert {path.name for path in out.iterdir()} == {"a.jpg", "b.jpg", "ü#?.jpg", "a.thumb.webp"}


def test_a_file_that_is_there_is_not_replaced_unasked(stack: Stack, album: Path, bucket: str, tmp_path: Path) -> None:
    """get leaves it as it is and says so; with --force it is replaced."""
    lines(stack.command("put", str(album / "a.jpg"), "--bucket", bucket))
    mine = tmp_path / "mine.jpg"
    mine.write_text("mine")
    refused = stack.command("get", f"{bucket}/a.jpg", "-o", str(mine))
    assert (refused.returncode, mine.read_text()) == (1, "mine")
    assert "--force" in refused.stderr.decode()
    lines(stack.command("get", f"{bucket}/a.jpg", "-o", str(mine), "--force"))
    assert mine.read_bytes() == (album / "a.jpg").read_bytes()


def test_what_fails_is_summed_up_and_the_rest_is_stored(stack: Stack, album: Path, bucket: str, tmp_path: Path) -> None:
    """One that is no image and one that cannot be decoded: exit code 1, each with its reason, in JSON too; the good one
    is stored."""
    (tmp_path / "text.jpg").write_text("no image at all")
    (tmp_path / "cut.jpg").write_bytes(photos.make_jpeg(900, 700)[:3000])
    files = [str(tmp_path / name) for name in ("text.jpg", "cut.jpg")] + [str(album / "a.jpg")]
    done = stack.command("put", *files, "--bucket", bucket, "--wait", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["stored"], told["failed"]) == (2, 2)
    assert {Path(item["file"]).name: item["code"] for item in told["failures"]} == {
        "text.jpg": "not_an_image",
        "cut.jpg": "truncated",
    }
    (good,) = (item for item in told["photos"] if item["status"] == "ready")
    assert good["sha256"] == hashlib.sha256((album / "a.jpg").read_bytes()).hexdigest()
    assert good["previews"]["thumb"].endswith(f"/{bucket}/a.jpg/thumb.webp")
    plain = stack.command("put", *files, "--bucket", bucket)
    assert plain.returncode == 1
    assert "2 of 3 photos done, 1 failed." in plain.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-file.jpg"], "There is no file"),
        (["a/x.jpg", "b/x.jpg"], "would get the same key, x.jpg"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_planned_sends_nothing(
    stack: Stack, tmp_path: Path, bucket: str, arguments: list[str], said: str
) -> None:
    """Exit code 2 and a sentence, before anything is sent."""
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(photos.make_jpeg())
    done = stack.command("put", *(str(tmp_path / item) for item in arguments), "--bucket", bucket)
    assert (done.returncode, said in done.stderr.decode()) == (2, True), done.stderr.decode()
    assert stack.list_keys(bucket) == []


def test_a_gateway_that_dies_meanwhile_costs_no_photo_and_doubles_none(
    stack: Stack, api: Api, bucket: str, tmp_path: Path
) -> None:
    """With the gateway killed and started anew during `put` of 40 photos every one is stored, once."""
    (tmp_path / "many").mkdir()
    for number in range(40):
        (tmp_path / "many" / f"{number:02}.jpg").write_bytes(photos.make_jpeg(200 + number, 150))
    process = subprocess.Popen(
        [sys.executable, "-m", "safelight", "put", str(tmp_path / "many"), "--bucket", bucket, "--json"],
        env={"PATH": os.defpath, "SAFELIGHT_URL": api.url, "SAFELIGHT_KEY": api.token or ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: len(stack.list_keys(bucket)) >= 5, "some are stored")
        old = stack.gateway()
        os.kill(old, signal.SIGKILL)
        output, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0, errors.decode()
    told = json.loads(output)
    assert (told["stored"], told["failed"]) == (40, 0)
    assert stack.gateway() != old
    listed = lines(stack.command("ls", bucket, "--json"))
    assert len({json.loads(line)["id"] for line in listed}) == len(listed) == 40
    assert {json.loads(line)["id"] for line in listed} == {item["id"] for item in told["photos"]}


@pytest.mark.parametrize("place", ["missing/x.jpg", "/proc/x.jpg"])
def test_what_cannot_be_written_is_one_sentence(stack: Stack, album: Path, bucket: str, place: str) -> None:
    """A folder that is not there, and one in which nobody may write: exit code 1 and what to do."""
    lines(stack.command("put", str(album / "a.jpg"), "--bucket", bucket))
    done = stack.command("get", f"{bucket}/a.jpg", "--force", "-o", place)
    assert done.returncode == 1
    assert f"{place} cannot be written" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_full_disk_is_one_sentence(stack: Stack, api: Api, album: Path, bucket: str) -> None:
    """Where what is fetched finds no room: exit code 1 and what to do."""
    lines(stack.command("put", str(album / "a.jpg"), "--bucket", bucket))
    environment = {"PATH": os.defpath, "SAFELIGHT_URL": api.url, "SAFELIGHT_KEY": api.token or ""}
    command = [sys.executable, "-m", "safelight", "get", f"{bucket}/a.jpg", "-o", "-"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot be written: No space left" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


class Cutting(BaseHTTPRequestHandler):
    """Answers that end before they are whole, so often."""

    cuts = 0

    def do_GET(self) -> None:
        shown = {"photos": [_SHOWN], "next_cursor": None}
        self._answer(shown, whole="original" not in self.path)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).cuts -= 1
        self._answer(_SHOWN, whole=self.cuts < 0)

    def _answer(self, content: Any, *, whole: bool) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + (0 if whole else 1000)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


_SHOWN: dict[str, Any] = {
    **dict.fromkeys(("etag", "sha256", "size_bytes", "content_type", "status", "rejection", "settled_at")),
    **{"id": "01975a3c-7d2e-7a4e-9b1f-0d5c2a9e4b11", "bucket": "b", "key": "a.jpg", "artifacts": []},
    **{"links": {"original": "/original"}},
}


@pytest.fixture
def cutting() -> Iterator[dict[str, str]]:
    """The environment of a command that is to ask a gateway which cuts its answers off."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Cutting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield {"PATH": os.defpath, "SAFELIGHT_URL": url, "SAFELIGHT_KEY": f"{'A' * 20}.{'b' * 40}"}
        server.shutdown()


def ask_cutting(environment: dict[str, str], *arguments: str) -> Finished:
    command = [sys.executable, "-m", "safelight", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)


def test_a_download_that_is_cut_off_is_one_sentence(cutting: dict[str, str], tmp_path: Path) -> None:
    """get of a gateway that dies meanwhile: exit code 2, what to do, and no half file."""
    done = ask_cutting(cutting, "get", "b/a.jpg", "-o", str(tmp_path / "a.jpg"))
    assert done.returncode == 2
    assert "cut its answer off" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("cuts", "stored"), [(1, 2), (1000, 0)])
def test_an_answer_that_is_cut_off_is_asked_for_again(
    cutting: dict[str, str], album: Path, cuts: int, stored: int
) -> None:
    """put repeats it; where it never comes whole each file is a failure of its own, not the end of all."""
    Cutting.cuts = cuts
    more = ("--bucket", "b", "--json", "--retry-seconds", "2", "--parallel", "1")
    done = ask_cutting(cutting, "put", str(album / "a.jpg"), str(album / "day 1" / "b.jpg"), *more)
    told = json.loads(done.stdout)
    assert (told["stored"], told["failed"]) == (stored, 2 - stored)
    assert {item["code"] for item in told["failures"]} <= {"unreachable"}
    assert done.returncode == (0 if stored else 1)


def test_ls_lists_by_place_status_and_page(stack: Stack, api: Api, bucket: str) -> None:
    """Newest first, all of them however many pages it takes; --long and --json say more."""
    for number in range(5):
        api.put(bucket, f"in/{number}.jpg", photos.make_jpeg(60 + number, 48), wait=20 if number == 4 else 0)
    api.put(bucket, "out.jpg", photos.make_jpeg(900, 700)[:3000])
    assert lines(stack.command("ls", f"{bucket}/in/")) == [f"{bucket}/in/{number}.jpg" for number in (4, 3, 2, 1, 0)]
    assert lines(stack.command("ls", f"{bucket}/in/", "--limit", "2")) == [f"{bucket}/in/4.jpg", f"{bucket}/in/3.jpg"]
    assert lines(stack.command("ls", bucket, "--status", "rejected")) == [f"{bucket}/out.jpg"]
    (line,) = lines(stack.command("ls", bucket, "--long", "--status", "rejected"))
    assert "3.0 kB" in line
    assert "rejected" in line
    (told,) = lines(stack.command("ls", f"{bucket}/in/4", "--json"))
    assert json.loads(told)["key"] == "in/4.jpg"
    wrong = stack.command("ls", bucket, "--status", "odd")
    assert wrong.returncode == 2
    assert "Must be one of" in wrong.stderr.decode()


def explained(stack: Stack, target: str) -> tuple[int, dict[str, Any], str]:
    """Exit code of `why`, its JSON, and its plain text."""
    plain, told = stack.command("why", target), stack.command("why", target, "--json")
    assert plain.returncode == told.returncode, plain.stderr.decode()
    return plain.returncode, json.loads(told.stdout), plain.stdout.decode()


def test_why_tells_what_became_of_a_photo(stack: Stack, api: Api, s3: Any, bucket: str) -> None:
    """Ready, rejected, dead, never arrived, unrecorded and deleted: by key, by id and by job, with the command that
    helps; exit code 0 for one that is ready alone."""
    stack.wait_idle()
    fine = api.put(bucket, "fine.jpg", photos.make_jpeg())
    code, told, text = explained(stack, f"{bucket}/fine.jpg")
    assert (code, told["verdict"]) == (0, "ready")
    assert f"derived/{bucket}/fine.jpg/thumb.webp" in text
    assert explained(stack, fine["id"])[1]["photo_id"] == fine["id"]
    api.put(bucket, "cut.jpg", photos.make_jpeg(900, 700)[:3000])
    code, told, text = explained(stack, f"{bucket}/cut.jpg")
    assert (code, told["verdict"]) == (1, "rejected")
    assert "truncated" in text
    with stack.worker_suspended():
        lost = api.put(bucket, "lost.jpg", photos.make_jpeg(), wait=0)
        s3.delete_object(Bucket=bucket, Key="lost.jpg")
        wait_for(lambda: api.read("/v1/stats")["workers"] == [], "the silent worker is gone")
        with_nobody = api.put(bucket, "wait.jpg", photos.make_jpeg(), wait=0)
        assert explained(stack, with_nobody["id"])[1]["verdict"] == "no_worker"
    api.settle(lost["id"])
    code, told, text = explained(stack, str(lost["jobs"][0]["id"]))
    assert (code, told["verdict"], told["key"]) == (1, "lost", "lost.jpg")
    assert f"safelight jobs replay {lost['jobs'][0]['id']}" in text
    assert explained(stack, f"{bucket}/FINE.jpg")[1]["verdict"] == "never_arrived"
    assert f"Did you mean {bucket}/fine.jpg?" in explained(stack, f"{bucket}/FINE.jpg")[2]
    s3.put_object(Bucket=bucket, Key="direct.jpg", Body=photos.make_jpeg())
    code, told, text = explained(stack, f"{bucket}/direct.jpg")
    assert (told["verdict"], f"safelight reconcile --bucket {bucket}" in text) == ("unrecorded", True)
    assert api.request("DELETE", f"/v1/photos/{fine['id']}").status_code == 204
    assert explained(stack, fine["id"])[1]["verdict"] == "deleted"
    api.post("/v1/jobs/discard", json={"filter": {"bucket": bucket}})
    assert explained(stack, lost["id"])[1]["verdict"] == "lost"


def test_what_is_asked_in_vain_says_what_to_do(stack: Stack, api: Api, bucket: str) -> None:
    """No gateway, a wrong key, no settings, an odd target, no such photo: one sentence, and the documented code."""
    for arguments, settings, code, said in (
        (["ls"], {"SAFELIGHT_URL": "http://127.0.0.1:9"}, 2, "does not answer"),
        (["ls"], {"SAFELIGHT_KEY": "AAAAAAAAAAAAAAAAAAAA." + "b" * 20}, 2, "unauthorized"),
        (["ls"], {"SAFELIGHT_KEY": "nonsense"}, 2, "safelight keys create"),
        (["ls"], {"SAFELIGHT_URL": "gateway:8080"}, 2, "no address such as"),
        (["ls"], {"SAFELIGHT_URL": "", "SAFELIGHT_DATA_DIR": "/nowhere"}, 2, "Set SAFELIGHT_URL"),
        (["why", "beach"], {}, 2, "neither bucket/key"),
        (["get", f"{bucket}/none.jpg"], {}, 1, "safelight why"),
        (["why", "999999999"], {}, 1, "no_such_photo"),
    ):
        done = stack.command(*arguments, **settings)
        assert (done.returncode, said in done.stderr.decode()) == (code, True), (arguments, done.stderr.decode())
        assert (done.stdout, b"Traceback" in done.stderr) == (b"", False)


def test_the_connection_file_of_up_is_enough(stack: Stack, api: Api, bucket: str) -> None:
    """In the folder of `safelight up` no variable is needed."""
    api.put(bucket, "a.jpg", photos.make_jpeg(), wait=0)
    done = stack.command("ls", bucket, SAFELIGHT_URL="", SAFELIGHT_KEY="", SAFELIGHT_DATA_DIR=str(stack.data_dir))
    assert lines(done) == [f"{bucket}/a.jpg"]


def test_commands_beside_the_servers_find_those_of_up_too(stack: Stack, api: Api, bucket: str) -> None:
    """There a key is made that opens both doors, the photo of an earlier command is found, and the key revoked."""
    api.put(bucket, "a.jpg", photos.make_jpeg(), wait=0)
    here = {"SAFELIGHT_URL": "", "SAFELIGHT_KEY": "", "SAFELIGHT_DATA_DIR": str(stack.data_dir)}
    made = json.loads(stack.command("keys", "create", "--name", "here", "--json", **here).stdout)
    assert made["opens_s3"] is True
    assert stack.client(made["token"]).get("/v1/photos").status_code == 200
    revoked = stack.command("keys", "revoke", made["access_key"], "--json", **here)
    assert json.loads(revoked.stdout) == {"access_key": made["access_key"], "revoked": True}
    compared = stack.command("reconcile", "--dry-run", "--bucket", bucket, "--json", **here)
    assert compared.returncode == 0, compared.stderr.decode()
    nowhere = stack.command("keys", "list", **here | {"SAFELIGHT_DATA_DIR": "/nowhere"})
    assert (nowhere.returncode, b"SAFELIGHT_POSTGRES_DSN is not set" in nowhere.stderr) == (2, True)


def test_a_device_is_not_replaced(stack: Stack, album: Path, bucket: str, tmp_path: Path) -> None:
    """Nor is a link to one; a link to a file leads to what is replaced."""
    lines(stack.command("put", str(album / "a.jpg"), "--bucket", bucket))
    device, old, link = tmp_path / "device", tmp_path / "old.jpg", tmp_path / "link.jpg"
    device.symlink_to(os.devnull)
    old.write_bytes(b"old")
    link.symlink_to(old)
    for place in (os.devnull, str(device)):
        done = stack.command("get", f"{bucket}/a.jpg", "--force", "-o", place)
        assert (done.returncode, b"is no file that could be replaced" in done.stderr) == (1, True)
    lines(stack.command("get", f"{bucket}/a.jpg", "--force", "-o", str(link)))
    assert (link.is_symlink(), old.read_bytes()) == (True, (album / "a.jpg").read_bytes())


@pytest.mark.parametrize("program", ["gateway", "worker", "door"])
def test_a_port_that_is_taken_is_one_sentence(stack: Stack, program: str) -> None:
    """Whatever wanted it: exit code 1, the address, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        backend = stack.connection["backend"]
        settings = {
            "SAFELIGHT_POSTGRES_DSN": stack.connection["postgres_dsn"],
            "SAFELIGHT_REDIS_URL": stack.connection["redis_url"],
            "SAFELIGHT_S3_ENDPOINT": backend["endpoint"],
            "SAFELIGHT_S3_ACCESS_KEY": backend["access_key"],
            "SAFELIGHT_S3_SECRET_KEY": backend["secret_key"],
            "SAFELIGHT_MASTER_KEY": stack.connection["master_key"],
            "SAFELIGHT_HTTP_PORT": port,
            "SAFELIGHT_S3_PORT": port,
            "SAFELIGHT_METRICS_PORT": port if program == "worker" else "0",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SAFELIGHT_")}
        done = subprocess.run(
            [sys.executable, "-m", "safelight", program],
            env={**kept, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    said = f"It cannot listen on 127.0.0.1:{port}: another program listens there."
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
