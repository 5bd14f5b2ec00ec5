"""What an S3 endpoint answered, in a form in which two endpoints can be compared: what must differ is taken out.

Names of buckets, hosts, request ids, times and made-up ids become placeholders; XML is compared as a tree. Of an
error its status and code count, and a few headers.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from xml.etree import ElementTree

# Of one connection, one server or one moment.
_VOLATILE = frozenset(
    (
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "server",
        "transfer-encoding",
        "x-amz-id-2",
        "x-amz-request-id",
        "x-safelight-request-id",
        "x-amz-server-side-encryption-context",
    )
)
_OF_ERRORS = ("access-control-", "content-range", "x-amz-delete-marker", "x-amz-version-id", "x-amz-error")
_IDS = frozenset(
    (
        "DeleteMarkerVersionId",
        "NextUploadIdMarker",
        "NextVersionIdMarker",
        "UploadId",
        "UploadIdMarker",
        "VersionId",
        "VersionIdMarker",
        "x-amz-copy-source-version-id",
        "x-amz-version-id",
    )
)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d (?:GMT|UTC|\+0000)"
)
_EPOCH = re.compile(r"1\d{9}(?:\d{9})?")  # seconds or nanoseconds: SeaweedFS tells times of its own so
_NO_TYPE = "content-type: application/octet-stream"
_SHOWN_BYTES = 200
_SHOWN_LINES = 12
_NOT_AN_ID = ("", "null")


class Rule(Enum):
    """How far two answers have to agree."""

    SAME = auto()
    REFUSED = auto()  # by both, in whatever words
    STRICTER = auto()  # the same, or the door refuses
    MORE = auto()  # the same, or the storage refuses
    STATUS = auto()  # the same status
    HIDDEN = auto()  # not at all


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer as it came."""

    asked: str
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    is_head: bool


@dataclass(frozen=True, kw_only=True)
class Told:
    """One answer, as it is compared. `lines`: its headers, then its body."""

    asked: str
    status: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n    ".join([f"{self.asked}: {self.status}", *(line[:_SHOWN_BYTES] for line in self.lines)])


@dataclass(kw_only=True)
class Names:
    """The placeholders of one endpoint. `fixed`: literal text -> placeholder."""

    fixed: dict[str, str] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)

    def add_bucket(self, name: str) -> None:
        self.fixed[name] = f"{{bucket {sum('{bucket' in text for text in self.fixed.values()) + 1}}}"

    def tell(self, answer: Answer) -> Told:
        is_error = answer.status >= 400
        body = list(self._tell_body(answer, is_error))
        headers = sorted(line for line in self._tell_headers(answer) if not is_error or line.startswith(_OF_ERRORS))
        return Told(asked=self.plain(answer.asked), status=answer.status, lines=(*headers, *body))

    def _tell_headers(self, answer: Answer) -> Iterable[str]:
        for name, value in answer.headers:
            lower = name.lower()
            if lower == "content-length" and answer.is_head:
                yield f"{lower}: {value}"
            elif lower not in _VOLATILE:
                yield f"{lower}: {self._mask(lower, value)}"

    def _tell_body(self, answer: Answer, is_error: bool) -> Iterable[str]:
        body = answer.body
        if body.lstrip()[:1] == b"<":
            try:
                root = ElementTree.fromstring(body.strip())
            except ElementTree.ParseError:
                pass
            else:
                return _tell_error(root, answer) if is_error else self._tell_element(root, "")
        text = self.plain(body.decode("latin-1"))
        if len(text) > _SHOWN_BYTES:
            return [f"{len(text)} bytes, sha256 {hashlib.sha256(text.encode()).hexdigest()}"]
        return [text] if text else []

    def _tell_element(self, element: ElementTree.Element, above: str) -> Iterable[str]:
        """A line for every element: its place in the tree and its text. The namespace is told once."""
        _, _, name = element.tag.rpartition("}")
        place = f"{above}/{name}" if above else element.tag
        attributes = "".join(f" {key}={value}" for key, value in element.attrib.items())
        yield f"{place}{attributes} {self._mask(name, (element.text or '').strip())}"
        children = [list(self._tell_element(child, place)) for child in element]
        if name == "DeleteResult":  # in no order
            children.sort()
        for lines in children:
            yield from lines

    def _mask(self, name: str, value: str) -> str:
        if name in _IDS and value not in _NOT_AN_ID:
            self._ids.setdefault(value, f"{{id {len(self._ids) + 1}}}")
        if name.startswith("seaweed-") and _EPOCH.fullmatch(value):
            return "{time}"
        return self.plain(value)

    def plain(self, text: str) -> str:
        for known in (self._ids, self.fixed):
            for literal, placeholder in sorted(known.items(), key=lambda item: -len(item[0])):
                text = text.replace(literal, placeholder)
        return _TIME.sub("{time}", text)


def differences(direct: Sequence[Told], other: Sequence[Told], rules: Sequence[Rule]) -> list[str]:
    """Where two transcripts of the same requests differ, each as lines to read. `rules`: of each answer."""
    found = [
        f"{number}. {one.asked}: {one.status} directly, {two.status} by the door{_compare(one.lines, two.lines)}"
        for number, (one, two, rule) in enumerate(zip(direct, other, rules, strict=False), 1)
        if not _agree(one, two, rule)
    ]
    if len(direct) != len(other):
        found.append(f"{len(direct)} answers directly, {len(other)} by the door")
    return found


def _tell_error(root: ElementTree.Element, answer: Answer) -> list[str]:
    named, header = root.findtext("RequestId"), {n.lower(): v for n, v in answer.headers}.get("x-amz-request-id")
    return [f"<Error> {root.findtext('Code')}", f"its id is {'' if named == header else 'not '}the header's"]


def _agree(direct: Told, door: Told, rule: Rule) -> bool:
    if rule is Rule.REFUSED:
        return 400 <= direct.status < 502 and 400 <= door.status < 502
    if rule is Rule.HIDDEN or (rule is Rule.MORE and 400 <= direct.status < 500):
        return True
    if rule is Rule.STATUS:
        return direct.status == door.status
    if rule is Rule.STRICTER and 400 <= door.status < 502:
        return True
    if not any(line.startswith("content-type:") for line in direct.lines):  # of no type is of this type
        door = replace(door, lines=tuple(line for line in door.lines if line != _NO_TYPE))
    return (direct.status, direct.lines) == (door.status, door.lines)


def _compare(one: Sequence[str], two: Sequence[str]) -> str:
    changed = [line for line in difflib.ndiff(one, two) if line[0] in "+-"]
    return "".join(f"\n      {line[:_SHOWN_BYTES]}" for line in changed[:_SHOWN_LINES])
