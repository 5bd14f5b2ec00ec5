"""Keys and bearer tokens, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import credentials
from storage.credentials import Credential, KeyRecord

NOW = datetime(2026, 5, 17, tzinfo=UTC)
ACCESS, SECRET = "SLABCDEFGHIJKLMNOPQR", "s" * 40


def record(**more: object) -> KeyRecord:
    return KeyRecord(
        **{
            "access_key": ACCESS,
            "secret_hash": credentials.hash_secret(SECRET),
            "name": "n",
            "scopes": frozenset(["read"]),
            "expires_at": None,
            "revoked_at": None,
            **more,
        }  # type: ignore[arg-type]
    )


def test_a_made_key_is_read_back_from_its_token() -> None:
    """Every key that is given out can be sent as a token, and no two are alike."""
    made = [credentials.generate() for _ in range(200)]
    assert [credentials.parse_token(item.token) for item in made] == made
    assert len({item.access_key for item in made}) == len({item.secret_key for item in made}) == 200
    assert all(len(item.secret_key) == 40 for item in made)


def test_a_secret_may_hold_dots() -> None:
    """The first dot parts the halves."""
    assert credentials.parse_token(f"{ACCESS}.a.b.c.d.e.f.g.h.i") == Credential(
        access_key=ACCESS, secret_key="a.b.c.d.e.f.g.h.i"
    )


@pytest.mark.parametrize(
    "token",
    [
        *("", ".", ACCESS, f"{ACCESS}.", f".{SECRET}", f"{ACCESS}.{'s' * 15}", f"{ACCESS}.{'s' * 129}"),
        *(f"{'A' * 15}.{SECRET}", f"{'A' * 41}.{SECRET}", f"{ACCESS}-.{SECRET}", f"{'Ä' * 20}.{SECRET}"),
        f"{'A' * 10}\0{'A' * 10}.{SECRET}",
    ],
)
def test_other_tokens_are_none_of_ours(token: str) -> None:
    """Halves that are missing, short, long or not alphanumeric are refused before any database is asked."""
    assert credentials.parse_token(token) is None


@given(st.text())
def test_any_text_is_a_token_or_none(text: str) -> None:
    """Whatever a stranger sends can be parsed and hashed without an error."""
    found = credentials.parse_token(text)
    assert found is None or found.token == text
    assert len(credentials.hash_secret(text)) == 32


@pytest.mark.parametrize(
    ("more", "secret", "opens"),
    [
        ({}, SECRET, True),
        ({}, SECRET + "s", False),
        ({}, "", False),
        ({"revoked_at": NOW - timedelta(days=9)}, SECRET, False),
        ({"expires_at": NOW + timedelta(seconds=1)}, SECRET, True),
        ({"expires_at": NOW}, SECRET, False),
    ],
)
def test_a_key_opens_with_its_secret_while_it_is_valid(more: dict[str, object], secret: str, opens: bool) -> None:
    """A wrong secret, a revocation and an expiry each close it."""
    assert record(**more).opens(secret, NOW) is opens
