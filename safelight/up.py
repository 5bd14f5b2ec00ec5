"""`safelight up`: everything needed, in one foreground process, without containers.

It starts the servers that the environment does not name, migrates, makes a key, runs a gateway and a worker,
starts again what dies, and stops everything on Ctrl-C. It is for one machine, not for production.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from safelight.embedded import FolderInUse, Server, ServerFailed, WheelMissing
from safelight.embedded.addresses import (
    answers,
    choose_gateway_ports,
    describe,
    hook_url,
    keep_hook_token,
    keep_key,
    keep_master_key,
    read_urls,
)
from safelight.embedded.children import Child, Keeper, read_to_end, stop_children
from safelight.embedded.folder import lock, make_private, name_holder, write_private
from safelight.embedded.identity import NoIdentity
from safelight.embedded.seaweedfs import SeaweedFS
from safelight.embedded.stack import choose_servers, placeholders_for, settings_of, start_all, stop_all
from safelight.settings import Settings, SettingsError, load, process_settings

_SAFELIGHT = (sys.executable, "-m", "safelight")
COMMANDS: Mapping[str, Sequence[str]] = {
    "migrate": (*_SAFELIGHT, "migrate"),
    "keys": (*_SAFELIGHT, "keys", "ensure", "--name", "up", "--scopes", "read,write,admin"),
    "gateway": (*_SAFELIGHT, "gateway"),
    "door": (*_SAFELIGHT, "door"),
    "worker": (*_SAFELIGHT, "worker"),
}
# For our children alone; no settings of the user's.
PORTS_FILE, KEY = "SAFELIGHT_PORTS_FILE", "SAFELIGHT_KEY"
MASTER_KEY = "SAFELIGHT_MASTER_KEY"
EVENTS_HOOK = "SAFELIGHT_HOOK_TOKEN"
READY_SECONDS = 60.0
TEND_SECONDS = 0.2
SAME_WISH_SECONDS = 0.5
KILL_AFTER_GRACE_SECONDS = 5.0


class Stopped(Exception):
    """The user asked for the end."""


class Failed(Exception):
    """Something that `up` needs did not work. The message says what to do."""


def up(environ: Mapping[str, str], commands: Mapping[str, Sequence[str]] = COMMANDS) -> int:
    """Run until stopped. Returns the exit code: 0 stopped, 1 something failed, 2 the settings are wrong."""
    run = Run(environ, commands)
    try:
        with run.signals_handled():
            run.work()
    except Stopped:
        return 0
    except SettingsError as error:
        for problem in error.problems:
            run.say(problem, style="red")
        return 2
    except (Failed, FolderInUse, NoIdentity, ServerFailed, WheelMissing, OSError) as error:
        run.say(str(error), style="red")
        return 1
    return 0


class Run:
    """One run of `safelight up`, from its first line to its last."""

    def __init__(self, environ: Mapping[str, str], commands: Mapping[str, Sequence[str]]) -> None:
        self.environ = {name: value for name, value in environ.items() if name not in (PORTS_FILE, KEY)}
        self.commands = commands
        self.console = Console()
        self.servers: list[Server] = []
        self.children: list[Child] = []
        self.stops_asked = 0
        self.stop_asked_at = 0.0

    def work(self) -> None:
        data_dir = make_private(Path(process_settings(self.environ).data_dir).expanduser())
        held = lock(data_dir)
        name_holder(held, os.getpid())
        try:
            self.serve(data_dir)
        finally:
            os.close(held)

    def serve(self, data_dir: Path) -> None:
        servers = choose_servers(self.environ, data_dir)
        environment = self.environ | {"SAFELIGHT_DATA_DIR": str(data_dir)}
        load(environment | placeholders_for(servers), opens_door=True)
        environment |= choose_gateway_ports(self.environ, self.warn)
        self.open_hook(data_dir, servers, environment)
        grace_seconds = 0.0
        # Whoever waits for this file must not read the addresses of an earlier run.
        (data_dir / "connection.json").unlink(missing_ok=True)
        try:
            self.start_servers(servers)
            environment |= {name: value for name, value in settings_of(servers).items() if not environment.get(name)}
            settings = load(environment)
            grace_seconds = settings.jobs.grace_seconds
            keys = keep_key(data_dir)
            own_master_key = ""  # none where the environment has one
            if not environment.get(MASTER_KEY, "").strip():
                environment[MASTER_KEY] = own_master_key = keep_master_key(data_dir)
            token = f"{keys['access_key']}.{keys['secret_key']}"
            self.run_once("migrate", "Preparing the database", environment)
            self.run_once("keys", "Making a key", environment | {KEY: token})
            urls = self.start_children(data_dir, environment)
            told = describe(settings, urls, keys, token, master_key=own_master_key)
            write_private(data_dir / "connection.json", json.dumps(told, indent=2))
            self.greet(data_dir, settings, urls, token)
            self.keep_running()
        finally:
            self.shut_down(grace_seconds)

    def open_hook(self, data_dir: Path, servers: list[Server], environment: dict[str, str]) -> None:
        """Have the embedded storage tell the gateway of what is written straight to it."""
        token = environment.get(EVENTS_HOOK, "").partition(",")[0].strip()
        if not token:
            token = environment[EVENTS_HOOK] = keep_hook_token(data_dir)
        for server in servers:
            if isinstance(server, SeaweedFS) and process_settings(environment).up_events == "on":
                server.push_events(hook_url(environment), token)

    def start_servers(self, servers: list[Server]) -> None:
        if not servers:
            return
        self.servers = servers
        started = time.monotonic()
        self.say(f"Starting {', '.join(server.name for server in servers)} ...")
        start_all(servers, self.check)
        self.say(f"Servers ready after {time.monotonic() - started:.1f} s")

    def run_once(self, key: str, step: str, environment: Mapping[str, str]) -> None:
        """Run a command to its end, silently unless it fails."""
        self.say(f"{step} ...")
        reading, writing = os.pipe()
        with open(reading, "rb", buffering=0) as output:
            child = Child(key, self.commands[key], environment, output=writing)
            self.children = [child]
            try:
                child.launch()
            finally:
                os.close(writing)
            said = read_to_end(child, output, self.check)
        if child.exit_code != 0:
            raise Failed(f"`safelight {key}` failed with exit code {child.exit_code}:\n{said[-8000:]}")

    def start_children(self, data_dir: Path, environment: dict[str, str]) -> dict[str, Any]:
        """Launch gateway, S3 door and worker; the addresses once they say that they are ready."""
        self.say("Starting gateway, S3 door and worker ...")
        environment = environment | {"PYTHONUNBUFFERED": "1"}
        metrics = metrics_ports(environment)
        ports_files = {name: data_dir / f"listening-{name}.json" for name in ("gateway", "door")}
        listeners = []
        for name, path in ports_files.items():
            path.unlink(missing_ok=True)
            own = {PORTS_FILE: str(path)} | metrics.get(name, {})
            listeners.append(Child(name, self.commands[name], environment | own))
        worker = Child("worker", self.commands["worker"], environment | metrics.get("worker", {}))
        self.children = [*listeners, worker]
        for child in self.children:
            child.launch()
        keeper, deadline = Keeper([worker, *self.servers]), time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check()
            self.tend(keeper)
            for child in listeners:
                if not child.running:
                    raise Failed(
                        f"The {child.name} ended while starting (exit code {child.exit_code}); see above for why."
                    )
            found = [read_urls(path) for path in ports_files.values()]
            urls = {name: url for part in found for name, url in (part or {}).items()}
            if all(found) and answers(f"{urls['http_url']}/readyz"):
                return urls
            time.sleep(0.05)
        raise Failed(f"The gateway was not ready within {READY_SECONDS:g} s; see above for why.")

    def keep_running(self) -> NoReturn:
        keeper = Keeper(self.processes())
        while True:
            self.check()
            self.tend(keeper)
            time.sleep(TEND_SECONDS)

    def tend(self, keeper: Keeper) -> None:
        for news in keeper.tend():
            self.warn(news)

    def shut_down(self, grace_seconds: float) -> None:
        if any(process.running for process in self.processes()):
            self.say("Stopping ... (Ctrl-C again kills at once)")
        stop_children(self.children, grace_seconds + KILL_AFTER_GRACE_SECONDS)
        stop_all(self.servers)
        self.say("Stopped.")

    def greet(self, data_dir: Path, settings: Settings, urls: Mapping[str, Any], token: str) -> None:
        lines = {
            "REST": urls["http_url"],
            "Dashboard": f"{urls['http_url']}/ (sign in with the token)",
            "Swagger UI": f"{urls['http_url']}/docs",
            "S3 door": f"{urls['s3_url']} (access key and secret key: the token's two halves)",
            "Storage": settings.storage.s3_endpoint or "AWS S3",
            "Token": token,
            "Data": f"{data_dir} (connection.json there holds every address and key)",
        }
        self.say("\nSafelight is up.\n", style="bold green")
        for name, value in lines.items():
            if value:
                self.say(f"  {name:<11} {value}")
        self.say("\nTry it:")
        self.say(
            f'  curl -sS -H "Authorization: Bearer {token}" -F file=@photo.jpg "{urls["http_url"]}/v1/photos?wait=10"',
            style="cyan",
        )
        self.say("\nCtrl-C stops everything.\n")

    def say(self, text: str, style: str | None = None) -> None:
        # A terminal that was closed must not keep the servers from being stopped.
        with suppress(OSError):
            self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(text, style="yellow")

    def processes(self) -> list[Child | Server]:
        return [*self.children, *self.servers]

    def check(self) -> None:
        if self.stops_asked:
            raise Stopped

    @contextmanager
    def signals_handled(self) -> Iterator[None]:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # One wish often comes as two signals: to the process and to its group.
        if self.stops_asked and time.monotonic() - self.stop_asked_at < SAME_WISH_SECONDS:
            return
        self.stops_asked += 1
        self.stop_asked_at = time.monotonic()
        if self.stops_asked > 1:
            # Nothing is waited for: this may have interrupted the very wait for the same process.
            for process in self.processes():
                with suppress(OSError):
                    process.strike()
            os._exit(130)


def metrics_ports(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """A port of its own for each process, from SAFELIGHT_METRICS_PORT on: gateway, worker, then the S3 door, which may
    be several processes."""
    first = process_settings(environ).metrics_port
    if not first:
        return {}
    names = ("gateway", "worker", "door")
    return {name: {"SAFELIGHT_METRICS_PORT": str(first + number)} for number, name in enumerate(names)}
