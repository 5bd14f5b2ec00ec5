"""A server's private folder: locks, secrets, ports, permissions."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from safelight.embedded.folder import (
    LOCALHOST,
    PORTS,
    FolderInUse,
    choose_port,
    is_free,
    keep_ports,
    keep_secrets,
    lock,
    make_private,
    name_holder,
    write_private,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_private_and_an_existing_one_is_left_alone(tmp_path: Path) -> None:
    """Only folders that Safelight makes get its permissions."""
    existing = tmp_path / "existing"
    existing.mkdir(mode=0o755)
    assert mode(make_private(existing / "new")) == 0o700
    assert mode(make_private(existing)) == 0o755


def test_a_private_file_is_readable_by_its_owner_only_even_when_it_replaces_an_open_one(
    tmp_path: Path,
) -> None:
    """Secrets never have a moment in which others can read them."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    write_private(path, "new")
    assert (path.read_text(), mode(path), os.listdir(tmp_path)) == ("new", 0o600, ["file"])


def test_secrets_are_made_once_and_new_names_are_added(tmp_path: Path) -> None:
    """A restart finds the same secrets; a later version's new ones do not change the old ones."""
    first = keep_secrets(tmp_path, ["a", "b"])
    assert first["a"] != first["b"]
    assert len(first["a"]) >= 32
    assert keep_secrets(tmp_path, ["a", "b"]) == first
    assert keep_secrets(tmp_path, ["a", "c"])["a"] == first["a"]
    assert mode(tmp_path / "secrets.json") == 0o600


def test_ports_are_kept_while_free_and_replaced_when_taken(tmp_path: Path) -> None:
    """A restart has the same ports, unless another program took one meanwhile: then only that one changes."""
    first = keep_ports(tmp_path, {"a": 0, "b": 0})
    assert keep_ports(tmp_path, {"a": 0, "b": 0}) == first
    with socket.socket() as other:
        other.bind((LOCALHOST, first["a"]))
        other.listen()
        second = keep_ports(tmp_path, {"a": 0, "b": 0})
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]


def test_a_wanted_port_is_used_and_never_given_to_another_name(tmp_path: Path) -> None:
    """An explicit port is obeyed, whatever was remembered and whatever else is chosen."""
    wanted = keep_ports(tmp_path, {"a": 0})["a"]
    assert keep_ports(tmp_path, {"b": 0, "a": wanted}) | {"b": 0} == {"a": wanted, "b": 0}
    assert keep_ports(tmp_path, {"b": 0, "a": wanted})["b"] != wanted


def test_chosen_ports_lie_below_the_range_of_outgoing_connections() -> None:
    """No client socket of the machine can take the port of a server that is down for a moment."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(PORTS) < first
    assert choose_port() in PORTS


def test_a_listening_socket_makes_its_port_taken() -> None:
    """What is_free says is what bind and listen would meet."""
    with socket.socket() as other:
        other.bind((LOCALHOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_a_locked_folder_is_refused_with_its_holder_and_freed_with_its_descriptor(tmp_path: Path) -> None:
    """Two processes never use one folder, and the message says who has it."""
    held = lock(tmp_path)
    name_holder(held, 4711)
    with pytest.raises(FolderInUse, match=r"in use by a running process \(pid 4711\).*SAFELIGHT_DATA_DIR"):
        lock(tmp_path)
    os.close(held)
    os.close(lock(tmp_path))
