"""Reads every setting from the environment, once, and reports all problems together.

The settings themselves are stated by the layer that needs them (storage, processors, gateway); here they only get
their names (`SAFELIGHT_` + the field's name in capitals) and their values. Nothing is read at import.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from gateway.door.tls import load_context
from gateway.settings import GatewaySettings
from processors import registry
from processors.contract import Preset
from processors.hooks import Hook, parse_hooks
from processors.settings import DEFAULT_PRESETS, JobSettings
from processors.webhooks.settings import WebhookSettings
from processors.webhooks.targets import parse_networks
from storage.sealing import MasterKeys
from storage.settings import StorageSettings, setting

PREFIX = "SAFELIGHT_"
# Variables of ours that are no settings: they belong to `safelight up`, to clients and keys, and to the fault tests.
NO_SETTINGS = (
    "SAFELIGHT_PORTS_FILE",
    "SAFELIGHT_KEY",
    "SAFELIGHT_URL",
    "SAFELIGHT_DOOR_CHILD",
    "SAFELIGHT_STORAGE_SECRET_KEY",
    "SAFELIGHT_FAILPOINT",
    "SAFELIGHT_FAILPOINT_DIR",
)
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_URL_SCHEMES = {
    "postgres_dsn": ("postgresql", "postgres"),
    "redis_url": ("redis", "rediss", "unix"),
    "s3_endpoint": ("http", "https"),
    "events_redis_url": ("redis", "rediss", "unix"),
    "sqs_queue_url": ("https", "http"),
    "sqs_endpoint": ("http", "https"),
    "s3_public_endpoint": ("http", "https"),
}
_WORDS = {
    "up_events": ("on", "off"),
    "reconcile_buckets": ("known", "all"),
    "log_format": ("console", "json"),
    "s3_anonymous": ("refuse", "storage"),
    "s3_trailers": ("drop", "pass"),
    "log_level": ("debug", "info", "warning", "error"),
}


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    data_dir: str = field(
        default=".safelight", metadata=setting("Where `safelight up` keeps its servers' data and secrets.")
    )
    up_events: str = field(
        default="on",
        metadata=setting("on or off: whether the storage of `safelight up` tells its gateway what is written to it."),
    )
    log_format: str = field(default="console", metadata=setting("console or json."))
    log_level: str = field(default="info", metadata=setting("debug, info, warning or error."))
    metrics_host: str = field(
        default="127.0.0.1",
        metadata=setting("Address that metrics can be scraped at without a key. Keep strangers away from it."),
    )
    metrics_port: int = field(
        default=0,
        metadata=setting(
            "Port of them, in every process; 0: none. Several processes of the S3 door take as many, from this one on.",
            minimum=0,
            maximum=65535,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    storage: StorageSettings
    jobs: JobSettings
    gateway: GatewaySettings
    webhooks: WebhookSettings
    process: ProcessSettings


class SettingsError(Exception):
    """Everything that is wrong with the settings, one sentence each, with what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


SECTIONS: dict[str, type[Any]] = {
    "storage": StorageSettings,
    "jobs": JobSettings,
    "gateway": GatewaySettings,
    "webhooks": WebhookSettings,
    "process": ProcessSettings,
}


def variables() -> Iterator[tuple[str, Field[Any]]]:
    """Every (environment variable, field), in the order in which they are documented."""
    for section in SECTIONS.values():
        for item in fields(section):
            yield PREFIX + item.name.upper(), item


def process_settings(environ: Mapping[str, str]) -> ProcessSettings:
    """The settings of the process alone: what `safelight up` must know before its servers exist."""
    problems: list[str] = []
    values = _section(ProcessSettings, environ, problems)
    if problems:
        raise SettingsError(problems)
    return ProcessSettings(**values)


def webhook_settings(environ: Mapping[str, str]) -> WebhookSettings:
    """The settings of webhooks alone, for commands that need nothing else. Raises SettingsError."""
    problems: list[str] = []
    values = _section(WebhookSettings, environ, problems)
    if problems:
        raise SettingsError(problems)
    return WebhookSettings(**values)


def storage_settings(environ: Mapping[str, str]) -> StorageSettings:
    """The settings of the storage alone, for commands that need no Postgres. Raises SettingsError."""
    problems: list[str] = []
    values = _section(StorageSettings, {f"{PREFIX}POSTGRES_DSN": "postgresql://127.0.0.1/none", **environ}, problems)
    if problems:
        raise SettingsError(problems)
    return StorageSettings(**values)


def load(environ: Mapping[str, str], *, opens_door: bool = False) -> Settings:
    """Parse and check every setting. Raises SettingsError that names all problems, not only the first.

    `opens_door`: the files that the S3 door needs are looked at; other processes may have the settings without them.
    """
    problems: list[str] = []
    sections = {name: _section(kind, environ, problems) for name, kind in SECTIONS.items()}
    known = {name for name, _ in variables()}
    problems += [
        f"{name} is not a setting of Safelight. `safelight settings` lists them; correct the name or unset it."
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    ]
    problems += _contradictions(sections)
    problems += _tls_problems(sections["gateway"], opens_door=opens_door)
    if problems:
        raise SettingsError(problems)
    return _close_derived(Settings(**{name: SECTIONS[name](**values) for name, values in sections.items()}))


def _close_derived(found: Settings) -> Settings:
    """With a rule that no preview, and nothing in quarantine, is ever taken for a photo, by whatever door it comes."""
    nobody = [Hook(bucket=name, prefix="", processors=(), presets=None) for name in found.storage.closed_buckets]
    return replace(found, jobs=replace(found.jobs, hooks=(*found.jobs.hooks, *nobody)))


def _section(kind: type[Any], environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for item in fields(kind):
        name = PREFIX + item.name.upper()
        text = environ.get(name, "").strip()
        if not text:
            if item.default is MISSING:
                problems.append(f"{name} is not set. Set it: {item.metadata['help']}")
            continue
        try:
            values[item.name] = _parse(item, hints[item.name], text)
        except ValueError as error:
            problems.append(f"{name} is {_shown(item, text)}, but {error}. {item.metadata['help']}")
    return values


def _shown(item: Field[Any], text: str) -> str:
    return repr(text) if item.repr and "dsn" not in item.name and item.name != "redis_url" else "set"


def _parse(item: Field[Any], hint: Any, text: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = typing.get_args(hint)[0]
    if hint is str:
        _check_text(item.name, text)
        return text
    if hint in (int, float):
        number = _size(text) if item.name.endswith("_bytes") else _number(hint, text)
        low, high = item.metadata["minimum"], item.metadata["maximum"]
        if low is not None and number < low:
            raise ValueError(f"it must be at least {low:g}")
        if high is not None and number > high:
            raise ValueError(f"it must be at most {high:g}")
        return number
    if item.name == "hooks":
        return parse_hooks(text)
    return tuple(_preset(part.strip()) for part in text.split(",") if part.strip())


def _number(hint: type, text: str) -> Any:
    try:
        number = hint(text)
    except ValueError:
        raise ValueError("it must be a whole number" if hint is int else "it must be a number") from None
    if not math.isfinite(number):
        raise ValueError("it must be a finite number")
    return number


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)(?:i?b)?", text.lower())
    if not match:
        raise ValueError("it must be a size such as 512MiB or a number of bytes")
    return int(match[1]) * _SIZES[match[2]]


def _check_text(name: str, text: str) -> None:
    if name in _URL_SCHEMES:
        parts = urlsplit(text)
        if parts.scheme not in _URL_SCHEMES[name] or (parts.scheme != "unix" and not parts.hostname):
            raise ValueError(f"it must be a URL that begins with {_URL_SCHEMES[name][0]}://")
    if name == "s3_public_endpoint" and (urlsplit(text).path.strip("/") or urlsplit(text).query):
        raise ValueError("it must end with the host or its port: a path would not be what the storage sees signed")
    if name.endswith("_bucket") and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text):
        raise ValueError("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")
    if name == "master_key":
        MasterKeys.parse(text)
    if name == "hook_token" and any(len(part.strip()) < 16 for part in text.split(",")):
        raise ValueError("each token must have 16 characters or more; `openssl rand -hex 20` makes one")
    if name == "webhook_allow":
        parse_networks(text)
    if name in _WORDS and text not in _WORDS[name]:
        *first, last = _WORDS[name]
        raise ValueError(f"it must be {', '.join(first)} or {last}")


def _preset(text: str) -> Preset:
    match = re.fullmatch(r"([a-z0-9][a-z0-9_-]{0,31}):(\d{1,5}):(jpeg|webp):(\d{1,3})", text)
    if not match or not (1 <= int(match[2]) <= 10_000 and 1 <= int(match[4]) <= 100):
        raise ValueError(
            f"{text!r} is no preset; write name:max side in px:webp or jpeg:quality, as in thumb:320:webp:80"
        )
    return Preset(name=match[1], max_side_px=int(match[2]), format=match[3], quality=int(match[4]))  # type: ignore[arg-type]


def _contradictions(sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    problems = []
    storage, jobs = sections["storage"], sections["jobs"]
    source, derived = storage.get("default_bucket", "photos"), storage.get("derived_bucket", "derived")
    if source == derived:
        problems.append(
            f"SAFELIGHT_DEFAULT_BUCKET and SAFELIGHT_DERIVED_BUCKET are both {source!r}. "
            "Give previews a bucket of their own."
        )
    quarantine = storage.get("quarantine_bucket", "")
    if quarantine and quarantine in (source, derived):
        problems.append(
            f"SAFELIGHT_QUARANTINE_BUCKET is {quarantine!r}, which has other things in it. Give it a bucket of its own."
        )
    names = [preset.name for preset in jobs.get("presets", ())]
    if len(set(names)) != len(names):
        problems.append("SAFELIGHT_PRESETS names a preset twice. Give each its own name.")
    return problems + _hook_contradictions(
        jobs.get("hooks", ()), jobs.get("presets", DEFAULT_PRESETS), derived, quarantine
    )


def _tls_problems(gateway: Mapping[str, Any], *, opens_door: bool) -> list[str]:
    certificate, key = gateway.get("s3_tls_cert", ""), gateway.get("s3_tls_key", "")
    if bool(certificate) != bool(key):
        present, absent = ("S3_TLS_CERT", "S3_TLS_KEY") if certificate else ("S3_TLS_KEY", "S3_TLS_CERT")
        return [
            f"SAFELIGHT_{present} is set without SAFELIGHT_{absent}. Set both; one file that holds both is named twice."
        ]
    if certificate and opens_door:
        try:
            load_context(certificate, key)
        except ValueError as error:
            return [f"SAFELIGHT_S3_TLS_CERT and SAFELIGHT_S3_TLS_KEY cannot be used: {error}."]
    return []


def _hook_contradictions(hooks: Sequence[Hook], presets: Sequence[Preset], derived: str, quarantine: str) -> list[str]:
    places = Counter(hook.place for hook in hooks)
    problems = [
        f"SAFELIGHT_HOOKS names {place!r} {times} times. Write one rule for it."
        for place, times in places.items()
        if times > 1
    ]
    if any(hook.bucket == derived for hook in hooks):
        problems.append(
            f"SAFELIGHT_HOOKS names {derived!r}, the bucket of previews (SAFELIGHT_DERIVED_BUCKET). "
            "Leave it out: it is never watched."
        )
    if quarantine and any(hook.bucket == quarantine for hook in hooks):
        problems.append(
            f"SAFELIGHT_HOOKS names {quarantine!r}, the bucket of rejected photos (SAFELIGHT_QUARANTINE_BUCKET). "
            "Leave it out: it is never watched."
        )
    named_processors = dict.fromkeys(name for hook in hooks for name in hook.processors or ())
    problems += _unknown("processor", named_processors, _processor_names(named_processors))
    named_presets = dict.fromkeys(name for hook in hooks for name in hook.presets or ())
    return problems + _unknown("preset", named_presets, [preset.name for preset in presets])


def _unknown(what: str, named: Iterable[str], known: Sequence[str]) -> list[str]:
    return [
        f"SAFELIGHT_HOOKS names {name!r}, which is no {what}. There are {', '.join(known)}."
        for name in named
        if name not in known
    ]


def _processor_names(named: Iterable[str]) -> list[str]:
    """Of the processors that there are. Those of other packages are imported only where one might be meant."""
    builtin = [item.name for item in registry.BUILTIN]
    return builtin if set(named) <= set(builtin) else [item.name for item in registry.available()]
