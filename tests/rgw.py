"""Ceph's S3 server (RGW) for tests, of the machine's own packages: a monitor, one store in memory, and the gateway.

All on 127.0.0.1 with free ports, in one folder, stopped with the context. Ready after some 15 seconds. It knows users
and tenants, checks signatures V2 and V4, and pushes bucket notifications over HTTP. What is stored is in memory only.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safelight.embedded.folder import LOCALHOST, choose_port, make_private, write_private
from safelight.embedded.server import NotReady, Server
from tests.servers import S3Backend

STORE_BYTES = 4 << 30
REGION = "us-east-1"
_COMMAND_SECONDS = 60
_READY_SECONDS = 60.0
_KEYS: dict[str, tuple[str, ...]] = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
    "client.rgw": ("mon", "allow rw", "osd", "allow rwx"),
}


@dataclass(frozen=True, kw_only=True)
class User:
    """A user of the RGW's own. `canonical_id`: as it stands in owners and grants."""

    canonical_id: str
    display_name: str
    access_key: str
    secret_key: str


class Daemon(Server):
    """One of its processes; its output goes into its folder."""

    name: ClassVar[str] = "Ceph"
    stop_seconds: ClassVar[float] = 5.0

    def __init__(self, folder: Path, command: Sequence[str], probe: Callable[[], None]) -> None:
        super().__init__(folder)
        self._command, self._probe = list(command), probe

    def prepare(self) -> None:
        """Everything is made by Rgw, before."""

    def command(self) -> list[str]:
        return self._command

    def probe(self) -> None:
        self._probe()


class Rgw:
    """A running RGW. `backend`: its address, and the key of the user `safelight`, which may make buckets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = choose_port()
        self._configuration = folder / "ceph.conf"
        self._daemons: list[Daemon] = []
        self.url = f"http://{LOCALHOST}:{self._port}"

    @property
    def backend(self) -> S3Backend:
        user = self._own
        return S3Backend(endpoint=self.url, access_key=user.access_key, secret_key=user.secret_key, region=REGION)

    @property
    def running(self) -> bool:
        return len(self._daemons) == 3 and all(daemon.running for daemon in self._daemons)

    @property
    def log(self) -> str:
        """The end of what the S3 server has said."""
        return self._daemons[-1].log_tail() if self._daemons else ""

    def start(self) -> None:
        """Make an empty one and wait until it serves. Raises ServerFailed. Must be called in the main thread."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        make_private(self._folder)
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        monitor_ports = choose_port(), choose_port()
        write_private(self._configuration, self._configure(fsid, monitor_ports))
        self._make_monitor(fsid, monitor_ports)
        self._launch("mon", ("ceph-mon", "-i", "a", "-f"), self._monitor_answers)
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._launch("osd", ("ceph-osd", "-i", "0", "-f"), self._store_is_up)
        self._launch("rgw", ("radosgw", "-n", "client.rgw", "-f"), self._serves)
        self._own = self.make_user("safelight")

    def stop(self) -> None:
        """End all of it; what was stored is gone."""
        while self._daemons:
            self._daemons.pop().kill()

    def make_user(self, name: str, *, tenant: str = "", **more: str) -> User:
        """A user with a key. `more`: further options of `radosgw-admin user create`, such as email."""
        made = User(
            canonical_id=f"{tenant}${name}" if tenant else name,
            display_name=f"The user {name}",
            access_key=secrets.token_hex(10).upper(),
            secret_key=secrets.token_hex(20),
        )
        options = {
            "uid": name,
            "display-name": made.display_name,
            "access-key": made.access_key,
            "secret": made.secret_key,
            **({"tenant": tenant} if tenant else {}),
            **more,
        }
        self.administer("user", "create", *(f"--{option}={value}" for option, value in options.items()))
        return made

    def administer(self, *arguments: str) -> Any:
        """What a radosgw-admin command says, from JSON."""
        said = self._run("radosgw-admin", "-n", "client.rgw", *arguments)
        return json.loads(said) if said.strip() else None

    def _configure(self, fsid: str, monitor_ports: tuple[int, int]) -> str:
        first, second = monitor_ports
        place = self._folder
        shared = {
            "fsid": fsid,
            "keyring": place / "keyring",
            "run dir": place,
            "crash dir": place,
            "admin socket": "",
            "log file": "",
            "log to stderr": "true",
            "err to stderr": "true",
            "mon initial members": "a",
            "mon host": f"[v2:{LOCALHOST}:{first},v1:{LOCALHOST}:{second}]",
            "public addr": LOCALHOST,
            "cluster addr": LOCALHOST,
            # Without authentication its S3 server never comes up.
            **dict.fromkeys(("auth cluster required", "auth service required", "auth client required"), "cephx"),
            "osd pool default size": 1,
            "osd pool default min size": 1,
            "osd pool default pg num": 8,
            "osd pool default pgp num": 8,
            "osd pool default pg autoscale mode": "off",
            "osd crush chooseleaf type": 0,
            "mon allow pool size one": "true",
            "mon max pg per osd": 1000,
            "mon data": place / "mon-data",
            "mon data avail warn": 1,
            "mon data avail crit": 0,
        }
        store = {
            "osd data": place / "osd-data",
            "osd objectstore": "memstore",
            "memstore device bytes": STORE_BYTES,
            "osd class load list": "*",
            "osd class default list": "*",
            "ms bind port min": 22_700,
            "ms bind port max": 32_700,
        }
        served = {
            "rgw frontends": f"beast endpoint={LOCALHOST}:{self._port} tcp_nodelay=1",
            "rgw data": place / "rgw-data",
            "rgw dns name": "",
            # Keys of clients and of a made-up key service may come without TLS: nobody listens on 127.0.0.1.
            "rgw crypt require ssl": "false",
            "rgw crypt s3 kms backend": "testing",
            "rgw crypt s3 kms encryption keys": "testkey-1=YmluCmJvb3N0CmJvb3N0LWJ1aWxkCmNlcGguY29uZgo= "
            "testkey-2=aWIKTWFrZWZpbGUKbWFuCm91dApzcmMKVGVzdGluZwo=",
            "rgw thread pool size": 32,
        }
        sections = {"global": shared, "osd": store, "client.rgw": served}
        return "".join(
            f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
            for name, options in sections.items()
        )

    def _make_monitor(self, fsid: str, ports: tuple[int, int]) -> None:
        keyring, monitors = str(self._folder / "keyring"), str(self._folder / "monmap")
        write_private(self._folder / "keyring", "")
        for name, rights in _KEYS.items():
            pairs = zip(rights[::2], rights[1::2], strict=True)
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *(f for p in pairs for f in ("--cap", *p)))
        addresses = f"[v2:{LOCALHOST}:{ports[0]},v1:{LOCALHOST}:{ports[1]}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monitors)
        for name in ("mon-data", "osd-data", "rgw-data"):
            make_private(self._folder / name)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)

    def _launch(self, name: str, command: Sequence[str], probe: Callable[[], None]) -> None:
        daemon = Daemon(self._folder / name, (*command, "-c", str(self._configuration)), probe)
        self._daemons.append(daemon)
        daemon.launch()
        daemon.wait_ready(_READY_SECONDS)

    def _monitor_answers(self) -> None:
        self._probe("ceph", "--connect-timeout", "5", "mon", "stat")

    def _store_is_up(self) -> None:
        stat = json.loads(self._probe("ceph", "osd", "stat", "--format", "json"))
        if stat["num_up_osds"] != 1:
            raise NotReady("the store is not up")

    def _serves(self) -> None:
        connection = http.client.HTTPConnection(LOCALHOST, self._port, timeout=5)
        try:
            connection.request("GET", "/")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(repr(error)) from error
        finally:
            connection.close()
        if status != 200:
            raise NotReady(f"it answers {status}")

    def _probe(self, *command: str) -> str:
        try:
            return self._run(*command)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise NotReady(repr(error)) from error

    def _run(self, program: str, *arguments: str) -> str:
        """What a command prints. Raises CalledProcessError, whose text holds what it complained of."""
        command = [program, "-c", str(self._configuration), *arguments]
        if program in ("ceph-authtool", "monmaptool"):
            command = [program, *arguments]
        done = subprocess.run(
            command,
            env={"PATH": os.defpath, "HOME": str(self._folder), "LC_ALL": "C.UTF-8"},
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            complaint = done.stderr.decode("utf-8", "replace")[-2000:]
            raise subprocess.CalledProcessError(done.returncode, f"{command}: {complaint}")
        return done.stdout.decode("utf-8")


@contextmanager
def open_rgw(folder: Path) -> Iterator[Rgw]:
    """A running RGW in a folder that is its own. Raises ServerFailed. Must be opened in the main thread."""
    rgw = Rgw(folder)
    try:
        rgw.start()
        yield rgw
    finally:
        rgw.stop()
