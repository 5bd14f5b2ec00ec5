"""Secrets sealed at rest: AES-256-GCM under a master key that lies in the environment, never in the database.

A sealed secret belongs to one access key and opens for no other. Several master keys make a change of them possible:
the first one seals, any of them opens. Stores nothing and reads no environment.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_VERSION = b"\x01"
_FINGERPRINT_BYTES, _NONCE_BYTES, _TAG_BYTES = 4, 12, 16
_HEADER_BYTES = len(_VERSION) + _FINGERPRINT_BYTES + _NONCE_BYTES
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=?")

Fault = Literal["other_master_key", "altered"]
_EXPLANATIONS: dict[Fault, str] = {
    "other_master_key": "it was sealed with a master key that is not among those given",
    "altered": "its bytes were altered, or it was sealed for another access key",
}


class SealBroken(Exception):
    """A sealed secret cannot be opened. `fault` says why, the message says it in words."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(_EXPLANATIONS[fault])
        self.fault = fault


@dataclass(frozen=True, kw_only=True)
class MasterKeys:
    """One or more master keys of 32 bytes; the first one seals."""

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> MasterKeys:
        """Read comma-separated master keys. Raises ValueError, whose message never holds any of them."""
        parts = [part.strip() for part in text.split(",")]
        return cls(keys=tuple(_parse_key(part, number) for number, part in enumerate(parts, 1)))

    def seal(self, secret: str, *, access_key: str) -> bytes:
        """The secret as bytes to store: version, fingerprint of the master key, nonce, ciphertext with its tag."""
        key, nonce = self.keys[0], os.urandom(_NONCE_BYTES)
        ciphertext = AESGCM(key).encrypt(nonce, secret.encode("utf-8", "surrogatepass"), access_key.encode())
        return _VERSION + _fingerprint(key) + nonce + ciphertext

    def open(self, sealed: bytes, *, access_key: str) -> str:
        """The secret again. Raises SealBroken."""
        if sealed[:1] != _VERSION or len(sealed) < _HEADER_BYTES + _TAG_BYTES:
            raise SealBroken("altered")
        fingerprint, nonce = sealed[1 : 1 + _FINGERPRINT_BYTES], sealed[1 + _FINGERPRINT_BYTES : _HEADER_BYTES]
        candidates = [key for key in self.keys if hmac.compare_digest(_fingerprint(key), fingerprint)]
        for key in candidates:
            try:
                secret = AESGCM(key).decrypt(nonce, sealed[_HEADER_BYTES:], access_key.encode())
            except InvalidTag:
                continue
            return secret.decode("utf-8", "surrogatepass")
        raise SealBroken("altered" if candidates else "other_master_key")

    def sealed_by_first(self, sealed: bytes) -> bool:
        """Whether a sealed secret names the first of these master keys as its own. Proves nothing: `open` does."""
        return sealed[: 1 + _FINGERPRINT_BYTES] == _VERSION + _fingerprint(self.keys[0])


def generate() -> str:
    """A fresh master key, as 64 hexadecimal digits."""
    return secrets.token_hex(KEY_BYTES)


def _fingerprint(key: bytes) -> bytes:
    """Tells master keys apart and says nothing about them: 4 bytes of an HMAC under the key itself."""
    return hmac.digest(key, b"safelight master key", hashlib.sha256)[:_FINGERPRINT_BYTES]


def _parse_key(text: str, number: int) -> bytes:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    standard = text.translate(str.maketrans("-_", "+/"))
    if _BASE64.fullmatch(standard):
        return base64.b64decode(standard.rstrip("=") + "=")
    raise ValueError(f"master key {number} of it is neither 64 hexadecimal digits nor 32 bytes in base64")
