"""The command line as a whole: whatever can be asked for is taught by `--help`, and answers programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from safelight.cli import app

# They serve until they are told to stop: their log is what programs read.
SERVING = {"up", "gateway", "door", "worker", "events"}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_of_itself(name: str) -> None:
    """A line of its help is the command as it would be typed."""
    lines = (COMMANDS[name].help or "").splitlines()
    assert any(line.startswith("  ") and f"safelight {name}" in line for line in lines), COMMANDS[name].help


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - SERVING))
def test_every_command_that_ends_prints_json(name: str) -> None:
    """`--json` is understood by all but those that serve."""
    assert "--json" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


def test_every_option_and_argument_says_what_it_is() -> None:
    """None without a sentence of help."""
    silent = [
        f"{name} {parameter.name}"
        for name, command in COMMANDS.items()
        for parameter in command.params
        if parameter.name != "help" and not getattr(parameter, "help", None)
    ]
    assert silent == []
