"""Lists, filters, conditional and ranged reads, retries of clients, keys, errors: what a client of REST relies on."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests import photos
from tests.acceptance.stack import Api, Stack, wait_for
from tests.photos import Exif

JPEG = photos.make_jpeg()
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'  # how a form's file begins
NOTE = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\n'  # and its field that is no file
END = b"\r\n--b--\r\n"
PROBLEM_MEMBERS = {"type", "title", "status", "code", "detail"}


def assert_problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is this problem, in the form of RFC 9457; returns it."""
    assert answer.headers["Content-Type"].startswith("application/problem+json"), answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert set(problem) >= PROBLEM_MEMBERS
    assert problem["type"] == f"urn:safelight:error:{code}"
    assert problem["detail"].endswith((".", "...")), problem["detail"]
    return problem


@pytest.fixture
def photo(api: Api, bucket: str) -> dict[str, Any]:
    """A photo that is ready, in a bucket of its own."""
    return api.put(bucket, "one.jpg", photos.make_jpeg(exif=Exif()))


def test_pages_follow_each_other_without_gap_or_repeat(api: Api, bucket: str) -> None:
    """Photos come newest first, each once, though more are stored while pages are read."""
    stored = [api.put(bucket, f"{number}.jpg", photos.make_jpeg(80, 60 + number), wait=0)["id"] for number in range(11)]
    seen: list[str] = []
    parameters: dict[str, Any] = {"bucket": bucket, "limit": 4}
    sizes = []
    while True:
        page = api.read("/v1/photos", **parameters)
        seen += [item["id"] for item in page["photos"]]
        sizes.append(len(page["photos"]))
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
        api.put(bucket, f"later-{len(sizes)}.jpg", photos.make_jpeg(90, 60 + len(sizes)), wait=0)
    assert seen == stored[::-1]
    assert sizes == [4, 4, 3]
    jobs = api.read("/v1/jobs", bucket=bucket, limit=5)
    further = api.read("/v1/jobs", bucket=bucket, limit=5, cursor=jobs["next_cursor"])
    ids = [job["id"] for job in jobs["jobs"] + further["jobs"]]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == 10


def test_each_filter_keeps_what_matches(api: Api, bucket: str) -> None:
    """Bucket, prefix, status, time taken and camera, alone and together."""
    makes = {
        "old/a.jpg": photos.make_jpeg(exif=Exif(taken_at="2001-02-03T04:05:06", make="Lumen", model="Q2")),
        "old/b.jpg": photos.make_jpeg(exif=Exif(taken_at="2011-02-03T04:05:06", make="Canopus", model="Mark 5")),
        "new/c.jpg": photos.make_jpeg(exif=Exif(taken_at="2021-02-03T04:05:06", make="Lumen", model="X100%_v")),
        "new/d.jpg": photos.make_jpeg(1600, 1200, noise=30)[:60_000],
    }
    for key, data in makes.items():
        api.put(bucket, key, data)

    def find(**filters: str) -> list[str]:
        found = api.read("/v1/photos", bucket=bucket, **filters)["photos"]
        return sorted(item["key"][-5] for item in found)

    assert find() == ["a", "b", "c", "d"]
    assert find(prefix="old/") == ["a", "b"]
    assert find(prefix="old_") == []
    assert find(status="ready") == ["a", "b", "c"]
    assert find(status="rejected") == ["d"]
    assert find(taken_after="2011-02-03T04:05:06") == ["b", "c"]
    assert find(taken_before="2011-02-03T04:05:06") == ["a"]
    assert find(taken_after="2001-01-01", taken_before="2020-01-01T00:00:00Z") == ["a", "b"]
    assert find(camera="lumen") == ["a", "c"]
    assert find(camera="100%_") == ["c"]
    assert find(camera="LUMEN", prefix="old/") == ["a"]
    assert api.read("/v1/photos", bucket="another-bucket")["photos"] == []


@pytest.mark.parametrize("kind", ["original", "preview"])
def test_conditional_and_ranged_reads(api: Api, photo: dict[str, Any], kind: str) -> None:
    """ETag, 304, Range, If-Range, 416 and HEAD as RFC 9110 has them, with closed headers, on originals and previews."""
    link = photo["links"]["original"] if kind == "original" else photo["links"]["previews"]["preview"]
    whole = api.get(link)
    tag, size = whole.headers["ETag"], len(whole.content)
    assert tag.startswith('"')
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in whole.headers["Content-Security-Policy"]
    disposition = whole.headers["Content-Disposition"]
    assert disposition.startswith("attachment" if kind == "original" else "inline")
    assert whole.headers["Accept-Ranges"] == "bytes"

    def ranged(value: str, **headers: str) -> tuple[int, bytes, str | None]:
        answer = api.get(link, headers={"Range": value, **headers})
        return answer.status_code, answer.content, answer.headers.get("Content-Range")

    assert ranged("bytes=0-9") == (206, whole.content[:10], f"bytes 0-9/{size}")
    assert ranged("bytes=10-") == (206, whole.content[10:], f"bytes 10-{size - 1}/{size}")
    assert ranged("bytes=-7") == (206, whole.content[-7:], f"bytes {size - 7}-{size - 1}/{size}")
    assert ranged(f"bytes=5-{size * 2}") == (206, whole.content[5:], f"bytes 5-{size - 1}/{size}")
    assert ranged("bytes=0-9", **{"If-Range": tag}) == (206, whole.content[:10], f"bytes 0-9/{size}")
    assert ranged("bytes=0-9", **{"If-Range": '"other"'}) == (200, whole.content, None)
    assert ranged("bytes=0-1,4-5") == (200, whole.content, None)
    outside = api.get(link, headers={"Range": f"bytes={size}-"})
    assert_problem(outside, 416, "range_not_satisfiable")
    assert outside.headers["Content-Range"] == f"bytes */{size}"
    for given in (tag, f'"x", W/{tag}', "*"):
        fresh = api.get(link, headers={"If-None-Match": given})
        assert (fresh.status_code, fresh.content, fresh.headers["ETag"]) == (304, b"", tag)
    assert api.get(link, headers={"If-None-Match": '"x"'}).status_code == 200
    assert api.get(link, headers={"If-Modified-Since": whole.headers["Last-Modified"]}).status_code == 304
    head = api.request("HEAD", link)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Content-Security-Policy"):
        assert head.headers[name] == whole.headers[name], name
    assert head.headers["Content-Length"] == str(size)


def test_head_is_answered_where_get_is(api: Api, photo: dict[str, Any]) -> None:
    """HEAD has GET's status and length, and no body."""
    for path in ("/v1/photos", photo["links"]["self"], "/v1/jobs", "/healthz", "/openapi.json"):
        head, full = api.request("HEAD", path), api.get(path)
        assert (head.status_code, head.content) == (full.status_code, b"") == (200, b"")
        assert head.headers["Content-Type"] == full.headers["Content-Type"]


def test_a_retry_with_the_same_key_is_answered_again(stack: Stack, api: Api, bucket: str) -> None:
    """Same key and body: the first photo, marked as replayed, at both doors. Another body or address: 422."""
    headers = {"Idempotency-Key": f"k-{bucket}"}
    form = {"file": ("a.jpg", photos.make_jpeg())}
    first = api.post("/v1/photos", params={"bucket": bucket}, files=form, headers=headers)
    again = api.post("/v1/photos", params={"bucket": bucket}, files=form, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["photos"][0]["id"] == first.json()["photos"][0]["id"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    other = {"file": ("a.jpg", photos.make_png())}
    refused = api.post("/v1/photos", params={"bucket": bucket}, files=other, headers=headers)
    assert_problem(refused, 422, "idempotency_key_reused")
    elsewhere = api.request("PUT", f"/v1/photos/{bucket}/a.jpg", data=photos.make_jpeg(), headers=headers)
    assert_problem(elsewhere, 422, "idempotency_key_reused")
    own = {"Idempotency-Key": f"own-{bucket}"}
    path = f"/v1/photos/{bucket}/b.jpg"
    one, two = (api.request("PUT", path, data=photos.make_jpeg(), headers=own) for _ in range(2))
    assert (two.status_code, two.json()["id"]) == (201, one.json()["id"])
    assert (one.headers.get("Idempotent-Replayed"), two.headers["Idempotent-Replayed"]) == (None, "true")
    assert len(stack.list_keys(bucket)) == 2


def test_twenty_equal_requests_at_once_store_one_photo(stack: Stack, bucket: str) -> None:
    """Each is answered with that photo, or told that it is under way; a later try gets it too."""
    headers = {"Idempotency-Key": f"k-{bucket}"}
    data = photos.make_jpeg(1200, 900, noise=20)

    def send(_: int) -> requests.Response:
        form = {"file": ("a.jpg", data)}
        return stack.api.post("/v1/photos", params={"bucket": bucket}, files=form, headers=headers)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    answers.append(send(20))
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, "idempotency_in_progress")
            assert int(answer.headers["Retry-After"]) >= 1
    stored = {answer.json()["photos"][0]["id"] for answer in answers if answer.status_code == 201}
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert answers[-1].status_code == 201
    assert len(stored) == 1
    assert len(stack.list_keys(bucket)) == 1
    assert len(stack.api.read("/v1/photos", bucket=bucket)["photos"]) == 1


def test_a_form_of_many_files_says_what_became_of_each(api: Api, bucket: str) -> None:
    """Good files are stored, the bad one is named with its place: 207. All good: 201."""
    good, bad = photos.make_jpeg(), b"no photo at all"
    mixed = [("file", ("a.jpg", good)), ("file", ("notes.txt", bad)), ("file", ("c.png", photos.make_png()))]
    answer = api.post("/v1/photos", params={"bucket": bucket, "wait": 20}, files=mixed)
    assert answer.status_code == 207
    assert [item["filename"] for item in answer.json()["photos"]] == ["a.jpg", "c.png"]
    assert [item["status"] for item in answer.json()["photos"]] == ["ready", "ready"]
    (error,) = answer.json()["errors"]
    assert (error["index"], error["filename"], error["code"], error["status"]) == (1, "notes.txt", "not_an_image", 415)
    fine = api.post("/v1/photos", params={"bucket": bucket}, files=[mixed[0], mixed[2]])
    assert (fine.status_code, fine.json()["errors"], len(fine.json()["photos"])) == (201, [], 2)
    assert len(api.read("/v1/photos", bucket=bucket)["photos"]) == 4


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_form"),
        (b"no form", "invalid_form"),
        (b"--b--\r\n", "no_files"),
        (b"--b\r\nNo Header\r\n\r\n" + JPEG + END, "invalid_form"),
        (b"--b\r\nX: \0\r\n\r\n" + JPEG + END, "invalid_form"),
        (FILE + b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--" + END, "invalid_form"),
        (FILE + b"\r\n" + JPEG, "body_cut_short"),
        (FILE + b"\r\n" + JPEG + END[:4], "body_cut_short"),
        (NOTE + bytes(70_000) + END, "invalid_form"),
        (5 * (NOTE + bytes(60_000) + b"\r\n") + FILE + b"\r\n" + JPEG + END, "invalid_form"),
        (101 * (NOTE + b"\r\n") + FILE + b"\r\n" + JPEG + END, "invalid_form"),
        (b'--b\r\nContent-Disposition: form-data; name="_charset_"\r\n\r\n' + bytes(99) + END, "invalid_form"),
    ],
    ids=[
        *("empty", "no form", "no parts", "no header", "NUL in a header", "form in a form", "no end", "half an end"),
        *("long field", "long fields", "many fields", "long charset"),
    ],
)
def test_a_malformed_form_is_refused_and_stores_nothing(
    stack: Stack, api: Api, bucket: str, body: bytes, code: str
) -> None:
    """Whatever is wrong with a form is the client's fault, 400, and leaves no photo behind."""
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert_problem(api.post("/v1/photos", params={"bucket": bucket}, data=body, headers=headers), 400, code)
    assert stack.list_keys(bucket) == []
    assert api.read("/v1/photos", bucket=bucket)["photos"] == []


def test_without_a_valid_key_nothing_is_told(stack: Stack, photo: dict[str, Any]) -> None:
    """No token, garbage, a wrong secret: 401 with a challenge, alike for what exists and what does not."""
    access_key, secret_key = stack.connection["access_key"], stack.connection["secret_key"]
    wrong = f"{access_key}.{secret_key[::-1]}"
    for token in (None, "garbage", wrong, f"{access_key}.", f"SL{'0' * 18}.{secret_key}"):
        for path in (photo["links"]["self"], photo["links"]["original"], "/v1/stats", "/v1/photos/unknown"):
            refused = stack.client(token).get(path)
            assert_problem(refused, 401, "unauthorized")
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    basic = stack.client(None).get("/v1/stats", headers={"Authorization": f"Basic {access_key}"})
    assert_problem(basic, 401, "unauthorized")
    assert stack.client(None).get("/readyz").status_code == 200


def test_a_key_opens_only_what_its_scopes_say(stack: Stack, bucket: str, photo: dict[str, Any]) -> None:
    """A read-only key reads and cannot write; a writer cannot act on the queue."""
    reader = stack.client(stack.make_key("read")["token"])
    assert reader.read(photo["links"]["self"])["id"] == photo["id"]
    for answer in (
        reader.request("PUT", f"/v1/photos/{bucket}/b.jpg", data=photos.make_jpeg()),
        reader.post("/v1/photos", files={"file": ("b.jpg", photos.make_jpeg())}),
        reader.request("DELETE", photo["links"]["self"]),
        reader.post("/v1/jobs/discard", json={"dry_run": True}),
    ):
        assert_problem(answer, 403, "forbidden")
    writer = stack.client(stack.make_key("read,write")["token"])
    assert writer.put(bucket, "b.jpg", photos.make_png())["status"] == "ready"
    assert_problem(writer.post("/v1/jobs/replay", json={"dry_run": True}), 403, "forbidden")
    assert sorted(stack.list_keys(bucket)) == ["b.jpg", "one.jpg"]


def test_a_revoked_key_opens_nothing_within_a_second(stack: Stack) -> None:
    """The gateway remembers a key for a second at most."""
    key = stack.make_key("read")
    guest = stack.client(key["token"])
    assert guest.get("/v1/stats").status_code == 200
    stack.run("keys", "revoke", key["access_key"])
    revoked_at = time.monotonic()
    wait_for(lambda: guest.get("/v1/stats").status_code == 401, "the key is refused", seconds=3)
    assert time.monotonic() - revoked_at < 2  # the second, and the time of a request on a busy machine
    assert_problem(guest.get("/v1/stats"), 401, "unauthorized")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/v1/nothing", {}, 404, "not_found"),
        ("PATCH", "/v1/photos", {}, 405, "method_not_allowed"),
        ("GET", "/v1/photos/not-an-id", {}, 404, "no_such_photo"),
        ("GET", "/v1/photos/00000000-0000-7000-8000-000000000000/exif", {}, 404, "no_such_photo"),
        ("GET", "/v1/jobs/99999999999999999999999", {}, 404, "no_such_job"),
        ("GET", "/v1/photos?colour=red", {}, 422, "invalid_request"),
        ("GET", "/v1/photos?limit=0", {}, 422, "invalid_request"),
        ("GET", "/v1/photos?cursor=%00", {}, 422, "invalid_request"),
        ("GET", "/v1/photos?taken_after=yesterday", {}, 422, "invalid_request"),
        ("GET", "/v1/jobs?state=asleep", {}, 422, "invalid_request"),
        (
            "POST",
            "/v1/jobs/replay",
            {"data": b"{", "headers": {"Content-Type": "application/json"}},
            400,
            "invalid_json",
        ),
        ("POST", "/v1/jobs/replay", {"json": {"filter": {"colour": "red"}}}, 422, "invalid_request"),
        ("POST", "/v1/photos", {"json": {}}, 415, "not_a_form"),
        ("POST", "/v1/photos", {"files": {"note": (None, "text")}}, 400, "no_files"),
        ("PUT", "/v1/photos/photos/a.jpg?wait=-1", {"data": b"x"}, 422, "invalid_request"),
        ("PUT", "/v1/photos/A_B/a.jpg", {"data": b"x"}, 400, "invalid_key"),
        ("PUT", f"/v1/photos/photos/{'%F0%9F%8F%96' * 1024}", {"data": b"x"}, 400, "invalid_key"),
        ("POST", "/v1/jobs/discard", {"json": {"dry_run": 0}}, 422, "invalid_request"),
        ("POST", "/v1/jobs/discard", {"json": {"dry_run": "yes"}}, 422, "invalid_request"),
        (
            "PUT",
            "/v1/photos/photos/a.jpg",
            {"data": b"x", "headers": {"Idempotency-Key": "a b"}},
            422,
            "invalid_request",
        ),
        (
            "PUT",
            "/v1/photos/photos/a.jpg",
            {"data": b"x", "headers": {"Content-Encoding": "gzip"}},
            415,
            "encoding_not_supported",
        ),
    ],
)
def test_every_error_has_the_one_form(
    api: Api, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    """Whatever is wrong is told as problem+json with a stable code, and with the request's id."""
    answer = api.request(method, path, **options)
    problem = assert_problem(answer, status, code)
    assert answer.headers["X-Request-Id"]
    if "colour" in path:
        assert "colour" in json.dumps(problem["errors"])
    if status == 405:
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_the_request_id_is_echoed(api: Api) -> None:
    """A client's own id comes back on answers and errors; one that could forge log lines is replaced."""
    for path in ("/healthz", "/v1/nothing", "/v1/photos"):
        assert api.get(path, headers={"X-Request-Id": "trace-7.a_b"}).headers["X-Request-Id"] == "trace-7.a_b"
    made = api.get("/healthz", headers={"X-Request-Id": "a b=c"}).headers["X-Request-Id"]
    assert made != "a b=c"
    assert api.get("/healthz").headers["X-Request-Id"] != made
