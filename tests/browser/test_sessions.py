"""Sessions of browsers over HTTP: what their cookie opens, what it does not, and how they end."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from tests import photos
from tests.acceptance.stack import Stack, wait_for

COOKIE = "safelight_session"


class _From(HTTPAdapter):
    """Connections that come from another address of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, source_address=(self._address, 0), **options)


class Window:
    """A browser as far as HTTP goes: it keeps its cookie and the CSRF token."""

    def __init__(self, stack: Stack, key: dict[str, Any], *, address: str = "127.0.0.1") -> None:
        self.url = stack.connection["http_url"]
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.mount("http://", _From(address))
        self.answer = self.sign_in(key["access_key"], key["secret_key"])
        self.csrf = self.answer.json().get("csrf_token", "")

    def sign_in(self, access_key: str, secret: str) -> requests.Response:
        return self.http.post(f"{self.url}/v1/session", json={"access_key": access_key, "secret": secret}, timeout=30)

    def request(self, method: str, path: str, *, csrf: str | None = None, **headers: str) -> requests.Response:
        given = {"X-CSRF-Token": self.csrf if csrf is None else csrf, **headers}
        return self.http.request(method, self.url + path, headers=given, json={}, timeout=30)

    def get(self, path: str) -> requests.Response:
        return self.http.get(self.url + path, timeout=30)


def test_a_session_opens_what_its_key_opens(stack: Stack) -> None:
    """With a read key the cookie reads, and tells name, scopes, end and CSRF token; writing stays forbidden."""
    key = stack.make_key("read")
    window = Window(stack, key)
    cookie = window.answer.headers["Set-Cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=Strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert key["secret_key"] not in cookie
    told = window.get("/v1/session").json()
    assert told == window.answer.json()
    assert (told["name"], told["scopes"], told["access_key"]) == ("guest", ["read"], key["access_key"])
    assert window.get("/v1/photos").status_code == 200
    refused = window.request("DELETE", "/v1/photos/00000000-0000-7000-8000-000000000000")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    by_token = stack.client(key["token"]).read("/v1/session")
    assert (by_token["scopes"], by_token["csrf_token"], by_token["expires_at"]) == (["read"], None, None)


def test_behind_tls_the_cookie_is_secure(stack: Stack) -> None:
    """Where the request came by TLS, as the proxy says, the cookie never travels without it."""
    key = stack.make_key("read")
    body = {"access_key": key["access_key"], "secret": key["secret_key"]}
    answer = stack.client(None).post("/v1/session", json=body, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")


def test_what_changes_something_needs_the_csrf_token(stack: Stack) -> None:
    """By cookie, without the session's own token or from another site, nothing is changed; with a bearer token none is
    needed."""
    window, other = Window(stack, stack.make_key("read,write,admin")), Window(stack, stack.make_key("read"))
    photo = stack.api.put("photos", "csrf/kept.jpg", photos.make_jpeg(64, 48))
    for csrf, headers in (
        ("", {}),
        ("0" * 64, {}),
        ("é", {}),
        (other.csrf, {}),
        (window.csrf, {"Sec-Fetch-Site": "cross-site"}),
        (window.csrf, {"Sec-Fetch-Site": "same-site"}),
    ):
        for method, path in (
            ("DELETE", f"/v1/photos/{photo['id']}"),
            ("POST", "/v1/jobs/discard"),
            ("POST", "/v1/processors/exif/pause"),
            ("DELETE", "/v1/session"),
        ):
            refused = window.request(method, path, csrf=csrf.encode().decode("latin-1"), **headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "csrf_refused"), (csrf, headers, path)
    assert stack.api.get(f"/v1/photos/{photo['id']}").status_code == 200
    assert window.request("DELETE", f"/v1/photos/{photo['id']}").status_code == 204


def test_deleting_in_a_browser_needs_the_admin_scope(stack: Stack) -> None:
    """By cookie a key without it is refused in words and the photo stays; by bearer token the same key may."""
    key = stack.make_key("read,write")
    window = Window(stack, key)
    photo = stack.api.put("photos", "sessions/kept.jpg", photos.make_jpeg(64, 48))
    refused = window.request("DELETE", f"/v1/photos/{photo['id']}")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "In a browser it needs the scope 'admin'" in refused.json()["detail"]
    assert stack.api.get(f"/v1/photos/{photo['id']}").status_code == 200
    assert stack.client(key["token"]).request("DELETE", f"/v1/photos/{photo['id']}").status_code == 204


def test_signing_out_ends_the_session_itself(stack: Stack) -> None:
    """After signing out the cookie opens nothing, even where somebody kept a copy."""
    window = Window(stack, stack.make_key("read"))
    kept = window.http.cookies[COOKIE]
    assert window.request("DELETE", "/v1/session").status_code == 204
    assert COOKIE not in window.http.cookies
    window.http.cookies.set(COOKIE, kept)
    assert window.get("/v1/photos").status_code == 401


def test_a_revoked_key_ends_its_sessions_within_a_second(stack: Stack) -> None:
    """Nothing is opened by a session whose key was revoked."""
    key = stack.make_key("read")
    window = Window(stack, key)
    assert window.get("/v1/photos").status_code == 200
    stack.run("keys", "revoke", key["access_key"])
    revoked_at = time.monotonic()
    wait_for(lambda: window.get("/v1/photos").status_code == 401, "the session is refused", seconds=3)
    assert time.monotonic() - revoked_at < 2  # the second, and the time of a request on a busy machine


def test_no_cookie_opens_that_we_did_not_make(stack: Stack) -> None:
    """Altered, empty, overlong and foreign cookies are 401; a bearer token goes before a cookie."""
    window = Window(stack, stack.make_key("read"))
    good = window.http.cookies[COOKIE]
    for bad in (good[:-1] + ("A" if good[-1] != "A" else "B"), "", good * 200, "a" * 43, "%00" * 43):
        answer = stack.client(None).get("/v1/photos", headers={"Cookie": f"{COOKIE}={bad}"})
        assert answer.status_code in (401, 400), bad
    both = {"Cookie": f"{COOKIE}={good}", "Authorization": "Bearer SL000000000000000000.wrong-secret-of-nobody"}
    assert stack.client(None).get("/v1/photos", headers=both).status_code == 401


@pytest.mark.parametrize(
    "body", [{"access_key": "", "secret": ""}, {"access_key": "SL" + "A" * 18, "secret": "x" * 40}]
)
def test_a_wrong_key_signs_nobody_in(stack: Stack, body: dict[str, str]) -> None:
    """401, no cookie, and nothing about what was wrong."""
    answer = stack.client(None).post("/v1/session", json=body)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert "Set-Cookie" not in answer.headers


def test_a_key_that_may_not_read_is_told(stack: Stack) -> None:
    """The pages only show what may be read: a key without that scope is refused with the reason."""
    window = Window(stack, stack.make_key("write"))
    assert window.answer.status_code == 403
    assert "'read'" in window.answer.json()["detail"]


def test_failures_are_limited_by_address(stack: Stack) -> None:
    """One address is refused after a burst of failures, with the right key too; another address signs in."""
    key = stack.make_key("read")
    wrong = {"access_key": key["access_key"], "secret_key": "w" * 40}
    window = Window(stack, wrong, address="127.0.0.9")
    statuses = [window.sign_in(wrong["access_key"], wrong["secret_key"]).status_code for _ in range(14)]
    assert statuses[:9] == [401] * 9
    assert statuses[-1] == 429
    late = window.sign_in(key["access_key"], key["secret_key"])
    assert (late.status_code, late.json()["code"]) == (429, "too_many_sign_ins")
    assert int(late.headers["Retry-After"]) >= 1
    assert Window(stack, key, address="127.0.0.10").answer.status_code == 201
