"""What every listening process of the gateway does alike: it stops on signals, and tells whoever waits where it is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path


def stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM or SIGINT from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def url_of(scheme: str, host: str, port: int) -> str:
    """An address that leads here, also where every address is listened on."""
    return f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - only shown


def write_ports(path: Path, **urls: str) -> None:
    """Name the addresses in a JSON file, which appears whole."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(urls), encoding="utf-8")
    os.replace(fresh, path)
