"""Rightly signed requests for what must not be or cannot be: other people's places, parts of nothing, sources that are
not there, operations that nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.integration.wrong_requests.recipes import (
    COMPLETE,
    COPY,
    DELETE,
    DELETE_MANY,
    PARTS,
    PUTS,
    Recipe,
    World,
    seal,
)
from tests.integration.wrong_requests.signing import Signature
from tests.integration.wrong_requests.wire import Draft
from tests.integration.wrong_requests.wrongs import ARGUMENT, DENIED, MISSING, REQUEST, Change, Wrong

XML = frozenset({"MalformedXML"})
NO_UPLOAD = frozenset({"NoSuchUpload"})
PRECONDITION = frozenset({"PreconditionFailed"})
# To the bucket of previews, for a storage that resolves dots or takes a backslash for a slash, as SeaweedFS does.
WAYS_UP = {
    "dots": "../{}/x.jpg",
    "encoded_dots": "%2E%2E/{}/x.jpg",
    "encoded_slash": "..%2F{}/x.jpg",
    "dots_within": "a/../../{}/x.jpg",
    "dots_behind_a_dot": "./../{}/x.jpg",
    "backslash": "..\\{}\\x.jpg",
    "encoded_backslash": "..%5C{}%5Cx.jpg",
    "backslashes_within": "a%5C..%5C..%5C{}/x.jpg",
}
PUT, PART = PUTS[0], PARTS[0]


def wrong_asks(world: World, rng: Random) -> Iterator[Wrong]:
    for recipe, name, by, change, codes in _cases(world):
        draft = recipe.make(world, world.pick_key(rng), world.pick_data(rng))
        change(draft, rng)
        yield Wrong(name=f"{recipe.name}.{name}", draft=seal(world, recipe, draft, by).draft, codes=codes)


def _cases(world: World) -> Iterator[tuple[Recipe, str, Signature, Change, frozenset[str]]]:
    who = world.who
    source = "x-amz-copy-source"
    for number in ("0", "10001", "-1", "a", ""):
        yield PART, f"number_{number}", who, _parameter("partNumber", number), ARGUMENT
    yield PART, "no_number", who, lambda d, _: d.drop_parameter("partNumber"), ARGUMENT
    yield PART, "no_upload", who, _parameter("uploadId", "0" * 32), NO_UPLOAD
    yield PART, "upload_of_other_key", who, _parameter("uploadId", world.finished.upload_id), NO_UPLOAD
    yield COMPLETE, "no_upload", who, _parameter("uploadId", "0" * 32), NO_UPLOAD
    yield COMPLETE, "other_part", who, _body(b"<PartNumber>1<", b"<PartNumber>2<"), frozenset({"InvalidPart"})
    yield (
        COMPLETE,
        "other_etag",
        who,
        _body(world.finished.etag.strip('"').encode(), b"0" * 32),
        frozenset({"InvalidPart"}),
    )
    yield COMPLETE, "no_xml", who, lambda d, _: setattr(d, "body", b"done"), XML
    yield COPY, "no_source", who, lambda d, _: d.set(source, f"/{world.bucket}/never.jpg"), frozenset({"NoSuchKey"})
    yield COPY, "bucket_as_source", who, lambda d, _: d.set(source, f"/{world.bucket}"), ARGUMENT
    yield COPY, "word_as_source", who, lambda d, _: d.set(source, "somewhere"), ARGUMENT
    yield COPY, "access_point", who, lambda d, _: d.set(source, "arn:aws:s3:us-east-1:1:accesspoint/a"), MISSING
    yield COPY, "by_writer", world.writer, lambda *_: None, DENIED
    yield COPY, "of_other_place", world.narrow, lambda d, _: setattr(d, "path", world.path("new/mine/a.jpg")), DENIED
    yield PUT, "in_other_place", world.narrow, lambda *_: None, DENIED
    yield PUT, "place_left", world.narrow, lambda d, _: setattr(d, "path", world.path("new/mine/../a.jpg")), DENIED
    yield PUT, "place_beside", world.narrow, lambda d, _: setattr(d, "path", world.path("new/mine.jpg")), DENIED
    yield DELETE_MANY, "in_other_place", world.narrow, lambda *_: None, DENIED
    yield DELETE_MANY, "no_xml", who, lambda d, _: _bare(d, b"all of them"), XML
    yield DELETE_MANY, "too_many", who, lambda d, _: _bare(d, _deletion(1001)), XML
    for text in ("torrent", "select", "restore", "encryption", "renameObject", "session", "unheard-of"):
        yield PUT, f"sub_{text}", who, _adder(text), MISSING
    yield PUT, "two_subs", who, lambda d, _: d.query.extend([("acl", None), ("tagging", None)]), REQUEST
    for name, way in WAYS_UP.items():
        yield PUT, f"up_{name}", who, _path(world.path(way.format(world.derived))), REQUEST
        yield DELETE, f"up_{name}", who, _path(world.path(way.format(world.derived))), REQUEST
    kept = world.path(world.kept[0])
    yield PUT, "must_be_new", who, lambda d, _: (setattr(d, "path", kept), d.set("If-None-Match", "*")), PRECONDITION
    yield PUT, "must_be_other", who, lambda d, _: (setattr(d, "path", kept), d.set("If-Match", '"0"')), PRECONDITION


def _parameter(name: str, value: str) -> Change:
    return lambda draft, _: draft.set_parameter(name, value)


def _adder(name: str) -> Change:
    return lambda draft, _: draft.query.append((name, None))


def _path(path: str) -> Change:
    return lambda draft, _: setattr(draft, "path", path)


def _body(old: bytes, new: bytes) -> Change:
    def change(draft: Draft, _: Random) -> None:
        assert old in draft.body
        draft.body = draft.body.replace(old, new)

    return change


def _bare(draft: Draft, body: bytes) -> None:
    draft.drop("content-md5")
    draft.body = body


def _deletion(count: int) -> bytes:
    keys = b"".join(b"<Object><Key>never/%d</Key></Object>" % number for number in range(count))
    return b"<Delete>%s</Delete>" % keys
