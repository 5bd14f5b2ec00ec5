"""S3's XML: errors out; part lists and deletion batches in, from strangers.

Document types are refused, so no entity can be declared; depth, elements and bytes are capped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

from gateway.s3.errors import S3Error

MAX_XML_BYTES = 4 << 20
MAX_PARTS = 10_000
MAX_DELETIONS = 1_000

_MAX_ELEMENTS = 100_000
_MAX_DEPTH = 8
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 cannot hold them
_ERROR_ROOT = re.compile(rb"(?:\xef\xbb\xbf)?(?:<\?xml[^>]*\?>\s*)?<(?:[\w.-]+:)?Error[\s/>]")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One line of CompleteMultipartUpload. `etag`: without its quotes."""

    number: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Deletion:
    key: str
    version_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeletionBatch:
    deletions: tuple[Deletion, ...]
    is_quiet: bool = field(default=False)


def render_error(error: S3Error, *, resource: str, request_id: str) -> bytes:
    """The body of an S3 error. What XML cannot hold is dropped from every text."""
    elements = {
        "Code": error.code,
        "Message": error.message,
        **error.details,
        "Resource": resource,
        "RequestId": request_id,
    }
    inner = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in elements.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


def find_error(body: bytes) -> tuple[str, str] | None:
    """(code, message) where a body is an <Error>, as some answers are in spite of their 200; None otherwise. Keep-alive
    whitespace may come first."""
    if not _ERROR_ROOT.match(body.lstrip()):
        return None
    try:
        root = _parse(body)
        return _child(root, "Code") or "InternalError", _child(root, "Message") or ""
    except S3Error:
        return "InternalError", "The storage's error cannot be read."


def parse_parts(body: bytes) -> tuple[Part, ...]:
    """The parts of a CompleteMultipartUpload, in their order. Raises S3Error MalformedXML."""
    root = _parse(body, "CompleteMultipartUpload")
    parts = tuple(_read_part(element) for element in root if element.tag == "Part")
    if not 1 <= len(parts) <= MAX_PARTS:
        raise S3Error("MalformedXML")
    return parts


def parse_deletions(body: bytes) -> DeletionBatch:
    """The batch of a DeleteObjects, which may be empty. Raises S3Error MalformedXML."""
    root = _parse(body, "Delete")
    deletions = tuple(_read_deletion(element) for element in root if element.tag == "Object")
    if len(deletions) > MAX_DELETIONS:
        raise S3Error("MalformedXML")
    return DeletionBatch(deletions=deletions, is_quiet=(_child(root, "Quiet") or "").strip().lower() == "true")


def _read_part(element: Element) -> Part:
    number, etag = (_child(element, "PartNumber") or "").strip(), _child(element, "ETag")
    if not re.fullmatch("[0-9]{1,5}", number) or not 1 <= int(number) <= MAX_PARTS or etag is None:
        raise S3Error("MalformedXML")
    return Part(number=int(number), etag=etag.strip().strip('"'))


def _read_deletion(element: Element) -> Deletion:
    key = _child(element, "Key")
    if not key:
        raise S3Error("MalformedXML")
    return Deletion(key=key, version_id=_child(element, "VersionId") or None)


def _child(element: Element, name: str) -> str | None:
    """The text of the one child of that name; None without one. Raises S3Error MalformedXML where it is repeated:
    parsers differ in which they take."""
    found = element.findall(name)
    if len(found) > 1:
        raise S3Error("MalformedXML")
    return (found[0].text or "") if found else None


def _parse(body: bytes, root_name: str | None = None) -> Element:
    """The root, its tags free of namespaces. Raises S3Error MalformedXML."""
    if len(body) > MAX_XML_BYTES:
        raise S3Error("MalformedXML", "The XML is too large.")
    reader = _Reader()
    try:
        reader.parser.Parse(body.lstrip(), True)
        root = reader.builder.close()
    except (expat.ExpatError, AssertionError, ValueError):
        raise S3Error("MalformedXML") from None
    if root_name is not None and root.tag != root_name:
        raise S3Error("MalformedXML")
    return root


class _Reader:
    """Builds a tree and counts while it does."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self.builder.data
        self._depth = 0
        self._elements = 0

    def _refuse(self, *_: object) -> None:
        raise S3Error("MalformedXML", "Document types are not allowed.")

    def _start(self, name: str, _attributes: object) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > _MAX_DEPTH or self._elements > _MAX_ELEMENTS:
            raise S3Error("MalformedXML", "The XML is too large.")
        self.builder.start(name.rpartition(":")[2], {})

    def _end(self, name: str) -> None:
        self._depth -= 1
        self.builder.end(name.rpartition(":")[2])


def _text(value: str) -> str:
    return escape(_ILLEGAL.sub("", value))
