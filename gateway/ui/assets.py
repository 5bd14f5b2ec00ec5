"""The dashboard's files, read once: compressed, named by what they hold, and so cacheable for ever.

All of them lie under one folder that is named by the hash of all, so that modules and styles find each other by
relative names and no two versions are ever mixed. Serves nothing.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_WORTH_COMPRESSING_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Asset:
    content: bytes
    gzipped: bytes | None  # None: not worth it
    content_type: str
    etag: str  # with its quotes


@dataclass(frozen=True, kw_only=True)
class Assets:
    """`files` by name, under the folder `/ui/<version>/`; `shell` is the page that all addresses share."""

    version: str
    files: dict[str, Asset]
    shell: Asset


def load_assets(folder: Path) -> Assets:
    """Every file of the folder. `index.html` is the shell; `{ui}` in it becomes the folder's address."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in _TYPES}
    digest = hashlib.sha256()
    for name, content in found.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    version = digest.hexdigest()[:16]
    page = found.pop("index.html").replace(b"{ui}", f"/ui/{version}".encode())
    return Assets(
        version=version,
        files={name: make_asset(name, content) for name, content in found.items()},
        shell=make_asset("index.html", page),
    )


def make_asset(name: str, content: bytes) -> Asset:
    smaller = gzip.compress(content, 9, mtime=0) if len(content) >= _WORTH_COMPRESSING_BYTES else None
    return Asset(
        content=content,
        gzipped=smaller if smaller and len(smaller) < len(content) else None,
        content_type=_TYPES[Path(name).suffix],
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )
