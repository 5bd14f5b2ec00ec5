"""Real S3 clients against the S3 door, by http and by TLS, and with Ceph RGW behind it: the same claims for each. With
DIRECT=1 in the environment also against the storage itself, which tells whose fault a failure is.

What a client wrote is read twice: by itself, and on the storage behind the door. Which clients cannot do what, and why,
is in client.py.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.clients.client import BY_HTTP, CANNOT, NOT_ON_THE_STORAGE, ONLY_BY_THE_DOOR
from tests.clients.conftest import BUCKET, Case, File
from tests.clients.installed import IN_JAVASCRIPT, NAMES
from tests.photos import make_jpeg

PLACES = ("storage", "http", "tls") if os.environ.get("DIRECT") else ("http", "tls")
# 100 MiB once for each client: by TLS for those that send trailers there, by http for the others.
LARGE_BY_TLS = ("boto3", "aws-cli", "aws-sdk-js")
JOBS = ["exif", "preview"]
STREAM_BYTES = (9 << 20) + 7

AWKWARD = (
    "two words",
    "a+b",
    "100%",
    "100%25",
    "%2F",
    "caf\u00e9",
    "cafe\u0301",  # the same, decomposed: another key
    "\u5199\u771f/\u65e5\u672c\u8a9e",
    "camera \U0001f4f7",
    "a=b&c",
    "~tilde",
    ".hidden",
    "trailing space ",
    " leading space",
    'it\'s "quoted"',
    "semi;colon,comma:colon",
    "hash#and?mark",
    "[brackets](and){braces}",
    "$dollar@at!",
    "<xml>&amp;",
    "deep/" * 12 + "end",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    claim = metafunc.function.__name__.removeprefix("test_")
    cases = [
        pytest.param((name, where), id=f"{name}-{where}", marks=_marks(name, where))
        for name in NAMES
        for where in _places(claim, name)
        if (name, claim) not in CANNOT
    ]
    metafunc.parametrize("case", cases, indirect=True, scope="module")


def _marks(name: str, where: str) -> list[pytest.MarkDecorator]:
    return [
        *([pytest.mark.needs_node] if name in IN_JAVASCRIPT else []),
        *([pytest.mark.needs_ceph] if where == "ceph" else []),
    ]


def _places(claim: str, name: str) -> tuple[str, ...]:
    if claim == "multipart_100mb":
        return ("tls",) if name in LARGE_BY_TLS else ("http",)
    if claim not in BY_HTTP.get(name, (claim,)):
        return ("tls",)
    only_by_the_door = name in NOT_ON_THE_STORAGE or (name, claim) in ONLY_BY_THE_DOOR
    places = tuple(place for place in PLACES if place != "storage" or not only_by_the_door)
    return places if name in NOT_ON_THE_STORAGE else (*places, "ceph")


@pytest.fixture
def storage(case: Case) -> Any:
    """boto3 on the storage behind the case's endpoint."""
    return case.storage


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """What the keys of this test begin with; ends with a slash."""
    return f"{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}/"


def test_put_get_list_delete(case: Case, storage: Any, prefix: str, tmp_path: Path) -> None:
    """What is put is read back and listed, and is gone when it was deleted."""
    data = _write(tmp_path / "in", 70_001)
    case.client.put(BUCKET, prefix + "one.bin", tmp_path / "in")
    storage.put_object(Bucket=BUCKET, Key=prefix + "folder/two.bin", Body=data)
    assert sorted(case.client.list(BUCKET, prefix)) == [prefix + "folder/two.bin", prefix + "one.bin"]
    case.client.get(BUCKET, prefix + "one.bin", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data == _stored(storage, prefix + "one.bin")
    case.client.delete(BUCKET, prefix + "one.bin")
    assert _keys(storage, prefix) == [prefix + "folder/two.bin"]


def test_multipart_100mb(case: Case, storage: Any, prefix: str, large_file: File, tmp_path: Path) -> None:
    """A file of 100 MiB goes up in parts, and comes back with its hash."""
    key = prefix + "large.bin"
    case.client.put(BUCKET, key, large_file.path)
    assert "-" in storage.head_object(Bucket=BUCKET, Key=key)["ETag"], "it did not go up in parts"
    case.client.get(BUCKET, key, tmp_path / "out")
    assert _sha256(tmp_path / "out") == large_file.sha256
    (tmp_path / "out").unlink()
    case.client.delete(BUCKET, key)


def test_presigned_get(case: Case, storage: Any, prefix: str) -> None:
    """Whoever has the client's presigned URL reads the object with plain HTTP, and nothing else."""
    key, data = prefix + "two words+\u00e9.bin", random.Random(3).randbytes(5_000)
    storage.put_object(Bucket=BUCKET, Key=key, Body=data)
    url = case.client.presign_get(BUCKET, key)
    answer = _plain(case, "GET", url)
    assert (answer.status_code, answer.content) == (200, data), answer.text
    assert _plain(case, "GET", url.replace("two", "too")).status_code == 403
    assert _plain(case, "DELETE", url).status_code == 403


def test_presigned_put(case: Case, storage: Any, prefix: str) -> None:
    """Whoever has the client's presigned URL for PUT stores the object with plain HTTP, under that key alone."""
    key, data = prefix + "two words+\u00e9.bin", random.Random(4).randbytes(5_000)
    url = case.client.presign_put(BUCKET, key)
    answer = _plain(case, "PUT", url, data=data)
    assert answer.status_code == 200, answer.text
    assert _plain(case, "PUT", url.replace("two", "too"), data=data).status_code == 403
    assert _keys(storage, prefix) == [key]
    assert _stored(storage, key) == data


def test_streaming_body(case: Case, storage: Any, prefix: str, tmp_path: Path) -> None:
    """A stream whose length nobody knows is stored whole, without the framing that it travelled in."""
    key, data = prefix + "stream.bin", _write(tmp_path / "in", STREAM_BYTES)
    case.client.put_stream(BUCKET, key, tmp_path / "in")
    assert _stored(storage, key) == data
    if case.door:
        assert "aws-chunked" not in storage.head_object(Bucket=BUCKET, Key=key).get("ContentEncoding", "")


def test_awkward_keys(case: Case, storage: Any, prefix: str, tmp_path: Path) -> None:
    """Keys of blanks, signs and any script keep their exact names: put, listed, read and deleted."""
    tree = {name: name.encode() for name in AWKWARD}
    wanted = {prefix + name: data for name, data in tree.items()}
    _make_tree(tmp_path / "in", tree)
    case.client.put_tree(BUCKET, prefix, tmp_path / "in")
    assert {key: _stored(storage, key) for key in _keys(storage, prefix)} == wanted
    assert sorted(case.client.list(BUCKET, prefix)) == sorted(wanted)
    _check_tree(case, prefix, tmp_path / "out", tree)
    case.client.delete_tree(BUCKET, prefix)
    assert _keys(storage, prefix) == []


def test_twenty_parallel(case: Case, storage: Any, prefix: str, tmp_path: Path) -> None:
    """Twenty objects at once, an empty one and one of 300 kB among them, arrive each with its own bytes."""
    tree = {f"{number:02}.bin": random.Random(number).randbytes(number * 15_873) for number in range(20)}
    _make_tree(tmp_path / "in", tree)
    case.client.put_tree(BUCKET, prefix, tmp_path / "in")
    assert {key.removeprefix(prefix): _stored(storage, key) for key in _keys(storage, prefix)} == tree
    _check_tree(case, prefix, tmp_path / "out", tree)


def test_metadata_and_content_type(case: Case, storage: Any, prefix: str, tmp_path: Path) -> None:
    """The content type and the metadata of a put are stored, and told by the client."""
    key, metadata = prefix + "note", {"color": "deep-red", "roll": "27"}
    _write(tmp_path / "in", 10)
    case.client.put(BUCKET, key, tmp_path / "in", content_type="text/x-note", metadata=metadata)
    stored = storage.head_object(Bucket=BUCKET, Key=key)
    assert stored["ContentType"] == "text/x-note"
    assert _part_of(stored["Metadata"], metadata) == metadata
    told = case.client.describe(BUCKET, key)
    assert told["content_type"] == "text/x-note"
    assert _part_of(told["metadata"], metadata) == metadata


def test_copy(case: Case, storage: Any, prefix: str) -> None:
    """A copy on the server has the bytes of its source, whose key is an awkward one."""
    source, target = prefix + "from+\u00e9%.bin", prefix + "to there+\u00e9%.bin"
    _copy(case, storage, source, target)


def test_copy_of_blanks(case: Case, storage: Any, prefix: str) -> None:
    """A key with blanks can be copied."""
    _copy(case, storage, prefix + "from here+%20.bin", prefix + "there.bin")


def test_range_get(case: Case, storage: Any, prefix: str, tmp_path: Path) -> None:
    """A range is exactly the bytes that were asked for."""
    key, data = prefix + "ranged.bin", random.Random(5).randbytes(50_000)
    storage.put_object(Bucket=BUCKET, Key=key, Body=data)
    case.client.get_range(BUCKET, key, tmp_path / "out", first=10_001, last=20_000)
    assert (tmp_path / "out").read_bytes() == data[10_001:20_001]


def test_photo(case: Case, storage: Any, prefix: str, tmp_path: Path) -> None:
    """A photo is stored and comes back byte for byte, with its type; by the door it has its row and its jobs."""
    key, photo = prefix + "holiday/IMG 0001.jpg", make_jpeg(320, 240)
    (tmp_path / "in.jpg").write_bytes(photo)
    case.client.put(BUCKET, key, tmp_path / "in.jpg", content_type="image/jpeg")
    case.client.get(BUCKET, key, tmp_path / "out.jpg")
    assert (tmp_path / "out.jpg").read_bytes() == photo == _stored(storage, key)
    assert storage.head_object(Bucket=BUCKET, Key=key)["ContentType"] == "image/jpeg"
    if case.door:
        etag = storage.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"')
        assert case.door.recorded(BUCKET, key) == {"etag": etag, "size_bytes": len(photo), "processors": JOBS}


def _write(path: Path, size: int) -> bytes:
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    return data


def _make_tree(folder: Path, tree: Mapping[str, bytes]) -> None:
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _check_tree(case: Case, prefix: str, folder: Path, tree: Mapping[str, bytes]) -> None:
    folder.mkdir()
    case.client.get_tree(BUCKET, prefix, folder)
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == tree


def _copy(case: Case, storage: Any, source: str, target: str) -> None:
    data = random.Random(6).randbytes(30_000)
    storage.put_object(Bucket=BUCKET, Key=source, Body=data)
    case.client.copy(BUCKET, source, target)
    assert _stored(storage, target) == data == _stored(storage, source)


def _stored(storage: Any, key: str) -> bytes:
    data: bytes = storage.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return data


def _keys(storage: Any, prefix: str) -> list[str]:
    return [item["Key"] for item in storage.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]


def _part_of(found: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Clients add metadata of their own."""
    return {name: value for name, value in found.items() if name in wanted}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(case: Case, method: str, url: str, data: bytes | None = None) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, data=data, verify=case.endpoint.ca_file or True, timeout=30)
