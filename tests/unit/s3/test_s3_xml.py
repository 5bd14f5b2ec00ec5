"""S3's XML: what we render parses again, what strangers send cannot hurt, errors inside of a 200 are found."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import S3Error
from gateway.s3.xml import Deletion, Part, find_error, parse_deletions, parse_parts, render_error
from tests.unit.s3.oracle import some

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
XML_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1)


@some
@given(message=st.text(), detail=st.text(), resource=st.text())
def test_errors_are_well_formed(message: str, detail: str, resource: str) -> None:
    """Whatever text goes into an error, the answer is XML that holds it, less what XML cannot hold."""
    error = S3Error("AccessDenied", message, details={"HeadersNotSigned": detail})
    root = ElementTree.fromstring(render_error(error, resource=resource, request_id="17"))
    assert [child.tag for child in root] == ["Code", "Message", "HeadersNotSigned", "Resource", "RequestId"]
    assert (root.findtext("Code"), root.findtext("RequestId")) == ("AccessDenied", "17")
    assert set(root.findtext("Resource") or "") <= set(resource) | {"\n"}


def test_control_characters_are_dropped() -> None:
    """A null byte in a key does not break the answer that speaks of it."""
    body = render_error(S3Error("NoSuchKey"), resource="/a\0b\x1b<&\ud800\ufffe\N{CAMERA}", request_id="1")
    assert "<Resource>/ab&lt;&amp;\N{CAMERA}</Resource>".encode() in body


def test_parts_are_read() -> None:
    """Parts come out in their order, with or without namespace, prefix, quotes and checksums."""
    body = f"""<?xml version="1.0" encoding="UTF-8"?><CompleteMultipartUpload {NAMESPACE}>
      <Part><ETag>"aa"</ETag><PartNumber> 1 </PartNumber></Part>
      <Part><PartNumber>2</PartNumber><ETag>bb</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>
    </CompleteMultipartUpload>"""
    expected = (Part(number=1, etag="aa"), Part(number=2, etag="bb"))
    assert parse_parts(body.encode()) == expected
    prefixed = body.replace("xmlns=", "xmlns:s=").replace("<", "<s:").replace("<s:/", "</s:").replace("<s:?", "<?")
    assert parse_parts(prefixed.encode()) == expected
    assert parse_parts(body.replace("UTF-8", "UTF-16").encode("utf-16")) == expected


@some
@given(keys=st.lists(XML_TEXT, min_size=1, max_size=5))
def test_any_keys_can_be_deleted(keys: list[str]) -> None:
    """Keys of a batch come out as they went in."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    batch = parse_deletions(f"<Delete {NAMESPACE}>{objects}<Quiet>true</Quiet></Delete>".encode())
    assert (batch.deletions, batch.is_quiet) == (tuple(Deletion(key=key) for key in keys), True)


def test_an_empty_batch_is_one() -> None:
    """Whether a batch may be empty is the storage's to say."""
    assert parse_deletions(b"<Delete></Delete>").deletions == ()


def test_versions_can_be_deleted() -> None:
    """A batch may name versions, and is loud unless told otherwise."""
    batch = parse_deletions(b"<Delete><Object><Key>a</Key><VersionId>7</VersionId></Object></Delete>")
    assert (batch.deletions, batch.is_quiet) == ((Deletion(key="a", version_id="7"),), False)


ONE = b"<Object><Key>a</Key></Object>"
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"<Delete>",
        b"<Other>" + ONE + b"</Other>",
        b"<Delete><Object><Key></Key></Object></Delete>",
        b"<Delete><Object></Object></Delete>",
        b"<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        b"<Delete><Object><Key>\x01</Key></Object></Delete>",
        b"<Delete><Object><Key>\xff</Key></Object></Delete>",
        b"<Delete><Object><Key>&undefined;</Key></Object></Delete>",
        b"<Delete>" + ONE * 1001 + b"</Delete>",
        b"<Delete>" + ONE + b"</Delete><Delete/>",
        BOMB,
        BOMB.decode().encode("utf-16"),
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Delete>' + ONE + b"</Delete>",
        b"<Delete>" * 20000,
        b"<Delete>" + b"<a/>" * 100001 + ONE + b"</Delete>",
        b"<Delete>" + ONE + b" " * (4 << 20) + b"</Delete>",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_hostile_batches(body: bytes) -> None:
    """Entities, depth, masses of elements and bytes, repeated and missing elements: all are malformed."""
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_deletions(body)


@pytest.mark.parametrize(
    "part",
    [
        "<Part/>",
        "<Part><PartNumber>0</PartNumber><ETag>a</ETag></Part>",
        "<Part><PartNumber>10001</PartNumber><ETag>a</ETag></Part>",
        "<Part><PartNumber>1</PartNumber></Part>",
        "<Part><PartNumber>\N{SUPERSCRIPT ONE}</PartNumber><ETag>a</ETag></Part>",
        "",
    ],
)
def test_malformed_parts(part: str) -> None:
    """Parts need a number from 1 to 10000 and an ETag."""
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_parts(f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode())


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"<Error><Code>SlowDown</Code><Message>later</Message></Error>", ("SlowDown", "later")),
        (b'<?xml version="1.0"?>\n   \n<Error><Code>SlowDown</Code></Error>', ("SlowDown", "")),
        (b"   \n\n <Error xmlns='x'><Code>NoSuchUpload</Code></Error>", ("NoSuchUpload", "")),
        (b"<s:Error xmlns:s='x'><s:Code>A</s:Code></s:Error>", ("A", "")),
        (b"<Error/>", ("InternalError", "")),
        (b"<Error><Code>cut", ("InternalError", "The storage's error cannot be read.")),
        (b"<Error><Code>a</Code><Code>b</Code></Error>", ("InternalError", "The storage's error cannot be read.")),
        (b"<CompleteMultipartUploadResult><Error/></CompleteMultipartUploadResult>", None),
        (b"<Errors/>", None),
        (b"<CopyObjectResult/>", None),
        (b" " * 100_000, None),
        (b"", None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_errors_inside_of_a_200(body: bytes, found: tuple[str, str] | None) -> None:
    """An <Error> root is found behind keep-alive whitespace and declarations; an inner element of that name is none."""
    assert find_error(body) == found
