"""Holds the import directions of docs/architecture.md, by reading every import of the four packages.

Imports inside functions and under TYPE_CHECKING count too, as does import_module("..."). A name that is put
together at run time is not seen.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "processors", "storage", "safelight")

# What a module may import of ours. The longest name that fits decides; a name stands for all below it.
DIRECTIONS: dict[str, set[str]] = {
    "storage": {"storage"},
    "storage.keys": set(),
    "storage.sealing": set(),
    "processors": {"processors", "storage"},
    "processors.contract": set(),
    "processors.photos": {"processors.contract", "processors.photos"},
    "processors.registry": {"processors.contract", "processors.photos"},
    "processors.sandbox": {"processors.contract", "processors.registry", "processors.sandbox"},
    "gateway": {
        "gateway",
        "storage",
        "processors.contract",
        "processors.registry",
        "processors.broker",
        "processors.dispatch",
        "processors.hooks",
        "processors.sequencer",
        "processors.settings",
        "processors.vitals",
        "processors.webhooks.removal",
        "processors.webhooks.settings",
        "processors.webhooks.signing",
        "processors.webhooks.targets",
        "processors.photos.formats",  # to look at the first bytes; it knows no imaging library
    },
    "gateway.events": {"gateway.events"},
    "safelight": {"safelight", "gateway", "processors", "storage"},
}

# Modules that import nothing but the standard library and the third-party packages named here.
CLOSED: dict[str, set[str]] = {
    "gateway.events": set(),
    "gateway.events.sns": {"cryptography"},
    "processors.contract": set(),
    "processors.photos": {"PIL", "pillow_heif", "pyvips", "exifread"},
    "processors.photos.formats": set(),
    "storage": {"asyncpg", "aioboto3", "aiobotocore", "botocore", "aiohttp", "structlog"},
    "storage.keys": set(),
    "storage.sealing": {"cryptography"},
}

# The only homes of a third-party package. The embedded servers speak to themselves before there is a storage.
HOMES: dict[str, set[str]] = {
    "asyncpg": {"storage", "safelight.embedded"},
    "aioboto3": {"storage"},
    "aiobotocore": {"storage"},
    "boto3": set(),
    "botocore": {"storage", "safelight.embedded"},
    "taskiq": {"processors"},
    "taskiq_redis": {"processors.broker"},
    "prometheus_client": {
        "processors.webhooks.metrics",
        "gateway",
        "processors.metrics",
        "processors.vitals",
        "safelight.exposition",
    },
    "redis": {"processors.broker", "processors.worker", "gateway", "safelight"},
    "aiohttp.web": {"gateway"},
    "cryptography": {"storage.sealing", "gateway.events.sns"},
    "PIL": {"processors.photos"},
    "pillow_heif": {"processors.photos"},
    "pyvips": {"processors.photos"},
    "exifread": {"processors.photos"},
    "typer": {"safelight"},
}

# A processor is a pure function: no I/O and no clock.
IMPURE = {
    "asyncio",
    "http",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "time",
    "urllib",
}


def below(module: str, name: str) -> bool:
    return module == name or module.startswith(name + ".")


def modules() -> dict[str, Path]:
    """Every module of the four packages, by its dotted name."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def imports(module: str, source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a module's source imports, as precise as it can be told."""
    package = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from ((node.lineno, name) for name in names if isinstance(name, str))


def strictest(module: str, rules: dict[str, set[str]]) -> set[str] | None:
    """What the rule with the longest name that fits the module allows; None where no rule fits."""
    name = max((name for name in rules if below(module, name)), key=len, default=None)
    return None if name is None else rules[name]


def is_allowed(module: str, name: str) -> bool:
    top = name.partition(".")[0]
    if top in PACKAGES:
        own_root = name == module.partition(".")[0]  # an empty package: gives nothing but its place
        return own_root or any(below(name, target) for target in strictest(module, DIRECTIONS) or ())
    if top in sys.stdlib_module_names:
        return not (below(module, "processors.photos") and top in IMPURE)
    libraries = strictest(module, CLOSED)
    homes = [places for library, places in HOMES.items() if below(name, library)]
    at_home = all(any(below(module, place) for place in places) for places in homes)
    return at_home and (libraries is None or top in libraries)


def violations(module: str, source: str) -> list[str]:
    """What a module imports but may not, one sentence each."""
    return [
        f"{module}:{line} may not import {name}"
        for line, name in imports(module, source)
        if not is_allowed(module, name)
    ]


def test_every_import_keeps_its_direction() -> None:
    """No module of gateway, processors, storage or safelight imports what it may not."""
    assert [text for module, file in MODULES.items() for text in violations(module, file.read_text())] == []


def test_the_tables_speak_of_modules_that_exist() -> None:
    """No rule has died with a module that was renamed or removed."""
    targets = {name for names in DIRECTIONS.values() for name in names}
    homes = {name for places in HOMES.values() for name in places}
    assert sorted((DIRECTIONS.keys() | CLOSED.keys() | targets | homes) - MODULES.keys()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("storage.objects", "import gateway.app"),
        ("storage.blobs", "from processors.contract import Artifact"),
        ("storage.keys", "from storage.settings import setting"),
        ("processors.runner", "from gateway import ingest"),
        ("processors.worker", "def run():\n    from safelight import settings"),
        ("processors.runner", "import asyncpg"),
        ("processors.runner", "from taskiq_redis import RedisStreamBroker"),
        ("processors.contract", "from processors import registry"),
        ("processors.contract", "from .settings import JobSettings"),
        ("processors.contract", "import structlog"),
        ("processors.photos.preview", "from ..settings import JobSettings"),
        ("processors.photos.preview", "import structlog"),
        ("processors.photos.exif", "import time"),
        ("processors.photos.formats", "from PIL import Image"),
        ("processors.sandbox.pool", "from storage.blobs import Blobs"),
        ("gateway.uploads", "from processors.photos import preview"),
        ("gateway.uploads", "from processors import runner"),
        ("gateway.uploads", "if TYPE_CHECKING:\n    from botocore.client import BaseClient"),
        ("gateway.catalog", "import importlib\nimportlib.import_module('processors.sandbox')"),
        ("gateway.app", "from safelight.settings import load"),
        ("gateway.events.reading", "from gateway.settings import GatewaySettings"),
        ("gateway.events.reading", "from storage import keys"),
        ("gateway.events.reading", "import aiohttp"),
        ("gateway.events.envelopes", "from cryptography import x509"),
        ("safelight.cli", "import pyvips"),
        ("processors.worker", "from aiohttp import web"),
        ("gateway.auth", "from cryptography.hazmat.primitives.ciphers.aead import AESGCM"),
    ],
)
def test_a_violation_is_found(module: str, source: str) -> None:
    """Each kind of forbidden import is reported with its module and line."""
    (found,) = violations(module, source)
    assert found.startswith(f"{module}:")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "gateway.uploads",
            "from processors.photos import formats\nfrom processors.broker import create_broker",
        ),
        ("gateway.app", "from aiohttp import web\nfrom . import uploads\nfrom storage import objects"),
        ("gateway.events.sns", "import base64\nfrom cryptography import x509\nfrom .envelopes import Envelope"),
        ("processors.broker", "from taskiq_redis import RedisStreamBroker\nimport storage.jobs"),
        ("processors.photos.preview", "import io\nimport pyvips\nfrom processors.contract import Outcome"),
        ("processors.sandbox.pool", "import structlog\nfrom ..contract import Source"),
        ("safelight.cli", "import typer\nfrom gateway.app import create_app\nfrom processors import worker"),
    ],
)
def test_what_the_design_allows_is_not_reported(module: str, source: str) -> None:
    """The rules leave the intended directions open."""
    assert violations(module, source) == []
