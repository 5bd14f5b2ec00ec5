"""Which buckets and prefixes are watched, with which processors and presets: the setting SAFELIGHT_HOOKS.

Rules, separated by commas: `<bucket or *>[/<key prefix>][:<processors joined by +, or none>[:<presets joined by +>]]`.
The longest match wins, a named bucket before `*`. Pure: whether such processors and presets exist is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from storage import keys

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Hook:
    """One rule. What it leaves open is None: any bucket, all processors, all presets."""

    bucket: str | None
    prefix: str  # that a key begins with; "" is any key
    processors: tuple[str, ...] | None  # empty: not watched
    presets: tuple[str, ...] | None

    @property
    def place(self) -> str:
        """As it is written in the setting."""
        return f"{self.bucket or '*'}{'/' if self.prefix else ''}{self.prefix}"

    def __str__(self) -> str:
        parts = [self.place]
        if self.processors is not None:
            parts.append("+".join(self.processors) or "none")
        if self.presets is not None:
            parts.append("+".join(self.presets))
        return ":".join(parts)


DEFAULT_HOOKS: Final = (Hook(bucket=None, prefix="", processors=None, presets=None),)


def find_hook(hooks: Iterable[Hook], bucket: str, key: str) -> Hook | None:
    """The rule that decides about this key. None, or a rule without processors: nobody watches there."""
    fitting = (hook for hook in hooks if hook.bucket in (None, bucket) and key.startswith(hook.prefix))
    return max(fitting, key=lambda hook: (hook.bucket is not None, len(hook.prefix)), default=None)


def parse_hooks(text: str) -> tuple[Hook, ...]:
    """The rules of a setting, at least one, in its order. Raises ValueError that says which of them is none and why."""
    hooks = tuple(_parse_hook(part.strip()) for part in text.split(",") if part.strip())
    if not hooks:
        raise ValueError("it holds no rule; write *:none to watch nothing")
    return hooks


def _parse_hook(text: str) -> Hook:
    parts = text.split(":")
    if len(parts) > 3 or (len(parts) == 3 and parts[1] == "none"):
        raise ValueError(f"{text!r} is no rule; write bucket/prefix:processors:presets, as in photos/raw/:exif")
    bucket, _, prefix = parts[0].partition("/")
    try:
        return Hook(
            bucket=_parse_bucket(bucket),
            prefix=_parse_prefix(prefix),
            processors=_parse_processors(parts[1]) if len(parts) > 1 else None,
            presets=_parse_names(parts[2], "presets") if len(parts) > 2 else None,
        )
    except ValueError as error:
        raise ValueError(f"{text!r} is no rule: {error}") from None


def _parse_bucket(text: str) -> str | None:
    return None if text == "*" else keys.check_bucket(text)


def _parse_prefix(text: str) -> str:
    if "*" in text:
        raise ValueError("a prefix is no pattern; leave out the *, what it stands for follows anyway")
    keys.check_key(f"{text}x")  # some key must be able to begin so
    return text


def _parse_processors(text: str) -> tuple[str, ...]:
    return () if text == "none" else _parse_names(text, "processors")


def _parse_names(text: str, what: str) -> tuple[str, ...]:
    names = tuple(text.split("+"))
    if not all(_NAME.fullmatch(name) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"its {what} are names joined by +, each of them once")
    return names
