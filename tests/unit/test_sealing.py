"""Sealed secrets, byte by byte: what opens them, what does not, and what is said about it."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import sealing
from storage.sealing import MasterKeys, SealBroken

OLD, NEW = bytes(range(32)), bytes(range(100, 132))
# SECRET for ACCESS under OLD, with the nonce 00 01 .. 0b: computed apart from storage.sealing.
KEPT = (
    "0196858517000102030405060708090a0b262fa57ea697a76fa02ef1a6d7860a19fafbe45c91093e1f4c0297f630006e9f"
    "607cc2d281ef3cb62bc0979112005ec91c9472bd43781e61"
)
ACCESS, SECRET = "SLABCDEFGHIJKLMNOPQR", "a-secret-of-forty-characters-in-all.....".ljust(40)


def masters(*keys: bytes) -> MasterKeys:
    return MasterKeys.parse(",".join(key.hex() for key in keys))


def fault_of(sealed: bytes, *keys: bytes, access_key: str = ACCESS) -> str:
    with pytest.raises(SealBroken) as caught:
        masters(*keys).open(sealed, access_key=access_key)
    return caught.value.fault


@given(secret=st.text(max_size=200), access_key=st.text("ABCZ27", min_size=16, max_size=40))
def test_what_was_sealed_opens_again(secret: str, access_key: str) -> None:
    """Any secret comes back the same for its access key, and is not among the sealed bytes."""
    sealed = masters(OLD).seal(secret, access_key=access_key)
    assert masters(OLD).open(sealed, access_key=access_key) == secret
    assert len(secret) < 3 or secret.encode("utf-8", "surrogatepass") not in sealed


def test_a_secret_that_is_no_valid_text_survives() -> None:
    """What an environment can hold beyond UTF-8 is sealed too."""
    assert masters(OLD).open(masters(OLD).seal("\udcff" * 20, access_key=ACCESS), access_key=ACCESS) == "\udcff" * 20


def test_no_two_seals_are_alike() -> None:
    """The same secret sealed twice gives other bytes: each has its own nonce."""
    sealed = {masters(OLD).seal(SECRET, access_key=ACCESS) for _ in range(100)}
    assert len(sealed) == len({item[5:17] for item in sealed}) == 100


def test_the_format_is_what_was_agreed() -> None:
    """Version 1, four bytes of fingerprint that are not the key's own, nonce, ciphertext, tag."""
    sealed = masters(OLD).seal(SECRET, access_key=ACCESS)
    assert sealed[0] == 1
    assert sealed[1:5] == masters(OLD).seal("other", access_key="OTHER")[1:5]
    assert sealed[1:5] != masters(NEW).seal(SECRET, access_key=ACCESS)[1:5]
    assert sealed[1:5] not in OLD
    assert len(sealed) == 1 + 4 + 12 + len(SECRET) + 16


def test_a_seal_made_by_version_1_still_opens() -> None:
    """What is in databases today can be opened by every later release."""
    assert masters(OLD).open(bytes.fromhex(KEPT), access_key=ACCESS) == SECRET


def test_the_first_key_seals_and_any_opens() -> None:
    """With new,old both the old seals and the new ones open; with the new one alone only the new ones do."""
    before = masters(OLD).seal(SECRET, access_key=ACCESS)
    after = masters(NEW, OLD).seal(SECRET, access_key=ACCESS)
    assert [masters(NEW, OLD).open(item, access_key=ACCESS) for item in (before, after)] == [SECRET] * 2
    assert masters(NEW).open(after, access_key=ACCESS) == SECRET
    assert fault_of(before, NEW) == "other_master_key"
    assert [masters(NEW, OLD).sealed_by_first(item) for item in (before, after)] == [False, True]


@pytest.mark.parametrize("position", range(17 + len(SECRET) + 16))
def test_every_altered_byte_is_noticed(position: int) -> None:
    """No bit of a seal can be changed: its fingerprint then names another master key, else it counts as altered."""
    sealed = bytearray(masters(OLD).seal(SECRET, access_key=ACCESS))
    sealed[position] ^= 1
    assert fault_of(bytes(sealed), OLD) == ("other_master_key" if 1 <= position <= 4 else "altered")


@given(cut=st.integers(0, 17 + len(SECRET) + 15))
def test_a_cut_seal_is_noticed(cut: int) -> None:
    """The beginning of a seal opens nothing, and raises nothing but SealBroken."""
    assert fault_of(masters(OLD).seal(SECRET, access_key=ACCESS)[:cut], OLD) == "altered"


@given(st.binary(max_size=80))
def test_any_bytes_are_a_broken_seal(noise: bytes) -> None:
    """Whatever a column holds, opening it raises SealBroken."""
    assert fault_of(noise, OLD) in ("altered", "other_master_key")


def test_a_seal_moved_to_another_key_does_not_open() -> None:
    """Who can write to the database cannot give one key the secret of another."""
    sealed = masters(OLD).seal(SECRET, access_key=ACCESS)
    assert fault_of(sealed, OLD, access_key=ACCESS[:-1] + "S") == "altered"


def test_a_master_key_with_the_same_fingerprint_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints are hints: where two master keys share one, the seal of either opens."""
    monkeypatch.setattr(sealing, "_fingerprint", lambda key: b"same")
    sealed = masters(OLD).seal(SECRET, access_key=ACCESS)
    assert masters(NEW, OLD).open(sealed, access_key=ACCESS) == SECRET
    assert fault_of(sealed, NEW) == "altered"


def test_master_keys_have_several_spellings() -> None:
    """Hexadecimal in either case and base64 of either alphabet, padded or not, are the same key."""
    key = bytes([0xFB, 0xFF] * 16)
    standard, urlsafe = base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode()
    assert "+" in standard
    assert "_" in urlsafe
    spellings = (key.hex(), key.hex().upper(), standard, urlsafe, standard.rstrip("="), urlsafe.rstrip("="))
    for text in (*spellings, f" {standard}\n"):
        assert MasterKeys.parse(text).keys == (key,)
    assert MasterKeys.parse(f"{key.hex()} , {OLD.hex()}").keys == (key, OLD)


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", f"{OLD.hex()},", "hidden-hidden", OLD.hex()[:-1], OLD.hex() + "0", OLD.hex()[:-1] + "g"),
        *(base64.b64encode(OLD[:31]).decode(), base64.b64encode(OLD + b"x").decode(), "\u0661" * 64, "=" * 44),
    ],
)
def test_other_texts_are_no_master_keys(text: str) -> None:
    """What is no key of 32 bytes is refused, by its number and without a word of it."""
    with pytest.raises(ValueError, match=r"master key [12] of it is neither") as caught:
        MasterKeys.parse(text)
    assert not [part for part in text.split(",") if len(part) > 3 and part in str(caught.value)]


def test_a_generated_key_is_a_master_key() -> None:
    """Each is 64 hexadecimal digits, another one every time, and seals."""
    made = {sealing.generate() for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(r"[0-9a-f]{64}", text) for text in made)
    assert len(MasterKeys.parse(",".join(made)).keys) == 50


def test_no_key_is_in_a_repr() -> None:
    """Master keys that end up in a log or a traceback do not show themselves."""
    assert repr(masters(OLD, NEW)) == "MasterKeys()"
