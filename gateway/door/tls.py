"""The certificate that the S3 door shows. Nothing is asked of a terminal: a key must not have a password."""

from __future__ import annotations

import ssl


def load_context(certificate_file: str, key_file: str) -> ssl.SSLContext:
    """What the door listens with. Raises ValueError, whose message says which file to look at."""
    for path in (certificate_file, key_file):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate_file, key_file, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the key in {key_file} is not that of the certificate in {certificate_file}") from None
        raise ValueError(
            f"{certificate_file} and {key_file} must be a certificate and its key without a password, both as PEM"
        ) from None
    return context
