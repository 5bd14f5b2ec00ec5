"""A browser's window on the dashboard, as one person has it, and what went wrong in it.

SCREENSHOTS_DIR names a folder for pictures of the pages, for people to look at.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.stack import Stack
from tests.chromium import watch_abroad

AXE = Path(sys.prefix, "browser", "node_modules", "axe-core", "axe.min.js")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}

# A file that is dropped has no path: it must be made within the page.
_DROP = """async ([files]) => {
  const transfer = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  }
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


class Visit:
    """A window; `scopes` of the key that it is signed in with, None for nobody."""

    def __init__(
        self,
        stack: Stack,
        browser: Browser,
        scopes: str | None,
        *,
        colours: Literal["dark", "light"] = "dark",
        phone: bool = False,
        place: str | None = None,
    ) -> None:
        self.url = stack.connection["http_url"]
        self.complaints: list[str] = []
        self.context = browser.new_context(
            viewport=PHONE if phone else DESK,  # type: ignore[arg-type]
            color_scheme=colours,
            reduced_motion="reduce",
            has_touch=phone,
            is_mobile=phone,
        )
        self.left_this_machine = watch_abroad(self.context)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.key: dict[str, Any] = {}
        if scopes is not None:
            limits = ("--place", place) if place else ()
            made = stack.run("keys", "create", "--name", "guest", "--scopes", scopes, *limits, "--json")
            self.key = json.loads(made)
            self.sign_in()

    def sign_in(self) -> None:
        """As the sign-in page does, without looking at it."""
        body = {"access_key": self.key["access_key"], "secret": self.key["secret_key"]}
        answer = self.context.request.post(f"{self.url}/v1/session", data=body)
        assert answer.status == 201, answer.text()
        self.context.add_init_script("localStorage.setItem('safelight.signed-in', 'yes')")

    def goto(self, path: str, heading: str | re.Pattern[str]) -> Page:
        self.page.goto(self.url + path)
        expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)
        return self.page

    def drop(self, files: dict[str, bytes]) -> None:
        self.page.evaluate(_DROP, [[[name, base64.b64encode(data).decode()] for name, data in files.items()]])

    def take_complaints(self, part: str) -> list[str]:
        """Complaints that a test provoked: those that hold `part` are taken from the list."""
        taken = [text for text in self.complaints if part in text]
        self.complaints = [text for text in self.complaints if part not in text]
        return taken

    def faults(self) -> list[str]:
        """What axe-core finds serious or critical on the page as it is."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(_axe_source())
        found = self.page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{item['id']}: {node['target']} {node['failureSummary']}"
            for item in found["violations"]
            if item["impact"] in ("serious", "critical")
            for node in item["nodes"]
        ]

    def shoot(self, name: str) -> None:
        folder = os.environ.get("SCREENSHOTS_DIR")
        if folder:
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))


@contextmanager
def paused(stack: Stack, processor: str, note: str = "") -> Iterator[None]:
    """Meanwhile the processor's jobs wait."""
    assert stack.api.post(f"/v1/processors/{processor}/pause", json={"note": note}).status_code == 200
    try:
        yield
    finally:
        assert stack.api.post(f"/v1/processors/{processor}/resume", json={}).status_code == 200


def _axe_source() -> str:
    if not AXE.exists():
        reason = f"{AXE} is absent: `make test` installs it where npm is."
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return AXE.read_text("utf-8")
