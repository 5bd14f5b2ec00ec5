"""One wrong request, and the words in which changes are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tests.integration.wrong_requests.recipes import Recipe, Sealed, World, seal
from tests.integration.wrong_requests.signing import Signature
from tests.integration.wrong_requests.wire import Draft

MISMATCH = frozenset({"SignatureDoesNotMatch"})
MALFORMED = frozenset({"AuthorizationHeaderMalformed"})
DENIED = frozenset({"AccessDenied"})
UNKNOWN = frozenset({"InvalidAccessKeyId"})
ARGUMENT = frozenset({"InvalidArgument"})
REQUEST = frozenset({"InvalidRequest"})
SKEWED = frozenset({"RequestTimeTooSkewed"})
MISSING = frozenset({"NotImplemented"})
DIGEST = frozenset({"BadDigest"})
INCOMPLETE = frozenset({"IncompleteBody"})
SILENT = frozenset({"RequestTimeout"})
TRAILER = frozenset({"MalformedTrailerError"})
PARAMETERS = frozenset({"AuthorizationQueryParametersError"})
NO_ANSWER = frozenset({""})
ANY_OF_A_SIGNATURE = MISMATCH | MALFORMED | DENIED | UNKNOWN | ARGUMENT | REQUEST | SKEWED | MISSING | PARAMETERS

Change = Callable[[Draft, Random], None]


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """`codes`: any of them is right. The empty one: no answer, because the client has gone."""

    name: str
    draft: Draft
    codes: frozenset[str]


def made(world: World, recipe: Recipe, rng: Random, by: Signature | None = None, **more: str) -> Sealed:
    """A right request by `by`, else by who may do everything."""
    draft = recipe.make(world, world.pick_key(rng), world.pick_data(rng))
    return seal(world, recipe, draft, by or world.who, **more)


def changed(
    world: World, recipe: Recipe, rng: Random, changes: dict[str, tuple[Change, frozenset[str]]]
) -> Iterator[Wrong]:
    """Each change, made to a request of its own after it was signed."""
    for name, (change, codes) in changes.items():
        draft = made(world, recipe, rng).draft
        change(draft, rng)
        yield Wrong(name=f"{recipe.name}.{name}", draft=draft, codes=codes)


def other_character(text: str, index: int, rng: Random, alphabet: str = "abcdefghijklmnopqrstuvwxyz0123456789") -> str:
    """The text with another character there; another one in either case."""
    new = rng.choice([letter for letter in alphabet if letter != text[index].lower()])
    return text[:index] + new + text[index + 1 :]


def other_digit(text: str, rng: Random) -> str:
    """Hexadecimal digits with another one somewhere."""
    return other_character(text, rng.randrange(len(text)), rng, "0123456789abcdef")


def other_byte(data: bytes, index: int, rng: Random) -> bytes:
    new = rng.choice([value for value in range(256) if bytes([value]).lower() != data[index : index + 1].lower()])
    return data[:index] + bytes([new]) + data[index + 1 :]
