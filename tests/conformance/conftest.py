"""Two ways to each storage: directly, and by the door before it. A case is played on both at once, and every answer
has to be the same.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.clients.door import Door, Surroundings
from tests.conformance.site import S3, Clients, Login, Site
from tests.conformance.storages import Storage, open_rgw_storage, open_seaweedfs_storage
from tests.conformance.transcript import differences
from tests.rgw import Rgw
from tests.servers import Servers

STORAGES = [pytest.param("rgw", marks=pytest.mark.needs_ceph), "seaweedfs"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A storage and the door before it."""

    storage: Storage
    direct: Site
    door: Site
    process: Door


class Comparison:
    """Plays a case on both sites."""

    def __init__(self, pair: Pair, clients: dict[str, Clients]) -> None:
        self.storage = pair.storage.name
        self._pair, self._clients = pair, clients

    def play(self, case: Callable[[S3], None], *, in_turn: bool) -> None:
        prefix = f"c{secrets.token_hex(4)}"
        sites = (self._pair.direct, self._pair.door)
        players = [S3(site, self._clients[site.letter], prefix) for site in sites]
        with ThreadPoolExecutor(1 if in_turn else 2) as pool:
            ends = list(pool.map(lambda player: _play(player, case), players))
        direct, door = (player.told for player in players)
        self._pair.storage.forget(prefix)
        found = differences(direct, door, players[0].rules)
        assert not found, "\n".join(["The door answers otherwise than the storage:", *found])
        assert ends == [None, None], f"the case itself failed: {ends}\n" + "\n".join(str(told) for told in direct[-3:])
        assert any(told.status < 300 for told in direct), "nothing of this case succeeded"


def _play(player: S3, case: Callable[[S3], None]) -> str | None:
    try:
        case(player)
    except Exception as error:  # noqa: BLE001 - a case that goes on with an answer that is not there
        return f"{type(error).__name__}: {error}"
    return None


@pytest.fixture(scope="session")
def _pairs(
    _session_servers: Servers, _session_rgw: Rgw, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Pair, dict[str, Clients]]]]:
    made: dict[str, tuple[Pair, dict[str, Clients]]] = {}
    folder = tmp_path_factory.mktemp("conformance")
    openers = {"rgw": lambda: open_rgw_storage(_session_rgw), "seaweedfs": lambda: open_seaweedfs_storage(folder)}

    def find(name: str) -> tuple[Pair, dict[str, Clients]]:
        if name not in made:
            pair = _open(openers[name](), _session_servers, folder)
            made[name] = pair, {site.letter: Clients(site) for site in (pair.direct, pair.door)}
        return made[name]

    yield find
    for pair, _ in made.values():
        pair.process.stop()
        pair.storage.close()


def _open(storage: Storage, servers: Servers, folder: Path) -> Pair:
    dsn = servers.postgres.dsn_of(servers.make_database())
    around = Surroundings(postgres_dsn=dsn, redis_url=servers.valkey.url, backend=storage.backend)
    door = Door(folder / f"door-{storage.name}", around, settings={"SAFELIGHT_S3_ANONYMOUS": "storage"})
    logins = {"main": _login(storage.logins["main"], door.endpoint.access_key, door.endpoint.secret_key)}
    for name, login in storage.logins.items():
        if name not in logins:
            made = door.make_key(name=name, storage_access_key=login.access_key, storage_secret_key=login.secret_key)
            logins[name] = _login(login, made.access_key, made.secret_key)
    return Pair(
        storage=storage,
        direct=Site(url=storage.backend.endpoint, storage=storage.name, logins=storage.logins, letter="a"),
        door=Site(url=door.endpoint.url, storage=storage.name, logins=logins, letter="b"),
        process=door,
    )


def _login(of: Login, access_key: str, secret_key: str) -> Login:
    return Login(access_key=access_key, secret_key=secret_key, canonical_id=of.canonical_id, email=of.email)


@pytest.fixture(params=STORAGES)
def comparison(request: pytest.FixtureRequest, _pairs: Any) -> Iterator[Comparison]:
    pair, clients = _pairs(request.param)
    yield Comparison(pair, clients)
    print(f"--- the door's log, at its end:\n{pair.process.log[-1500:]}")


def compared(case: Callable[..., None], *, in_turn: bool = False) -> Callable[..., None]:
    """A test that plays its body on both sites. Further arguments of the body are the test's parameters. `in_turn`: not
    on both at once."""
    parameters = list(inspect.signature(case).parameters.values())

    def test(comparison: Comparison, **given: Any) -> None:
        comparison.play(lambda s3: case(s3, **given), in_turn=in_turn)

    own = inspect.Parameter("comparison", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__name__, test.__doc__, test.__module__ = case.__name__, case.__doc__, case.__module__
    test.__qualname__ = case.__qualname__
    test.__signature__ = inspect.Signature([own, *parameters[1:]])  # type: ignore[attr-defined]
    return test


compared_in_turn = partial(compared, in_turn=True)
