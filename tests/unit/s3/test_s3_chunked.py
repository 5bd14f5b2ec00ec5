"""aws-chunked bodies: every slicing decodes, and no changed, cut or lengthened body gives out its last piece."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.checksums import Check, read_checks
from gateway.s3.chunked import Decoder, read_decoded_length, strip_framing
from gateway.s3.errors import S3Error
from gateway.s3.identity import PayloadMode
from gateway.s3.request import RawRequest, read_request
from tests.unit.s3.oracle import Framed, frame, some

SIGNED = PayloadMode.SIGNED_CHUNKS
SIGNED_TRAILER = PayloadMode.SIGNED_CHUNKS_TRAILER
UNSIGNED_TRAILER = PayloadMode.UNSIGNED_CHUNKS_TRAILER
MODES = st.sampled_from([SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])
CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=4)
HEADER = b"x-amz-checksum-crc32"


def crc32(payload: bytes) -> bytes:
    return base64.b64encode(zlib.crc32(payload).to_bytes(4, "big"))


def framed(chunks: Sequence[bytes], mode: PayloadMode) -> Framed:
    return frame(chunks, mode, trailer=[(HEADER, crc32(b"".join(chunks)))] if mode.has_trailer else [])


def decoder(body: Framed, *, length: int | None = None, checks: Sequence[Check] | None = None) -> Decoder:
    promised = [Check("crc32", HEADER, None)] if body.verified.payload_mode.has_trailer else []
    return Decoder(
        body.verified,
        decoded_length=len(body.payload) if length is None else length,
        checks=promised if checks is None else checks,
    )


def decode(decoder: Decoder, stream: bytes, cuts: Sequence[int] = ()) -> tuple[list[bytes], str | None]:
    """The released pieces, and the code of the error that ended the body."""
    pieces: list[bytes] = []
    ends = [*sorted(cuts), len(stream)]
    try:
        for start, end in zip([0, *ends], ends, strict=False):
            pieces += decoder.feed(stream[start:end])
        return pieces + decoder.finish(), None
    except S3Error as error:
        return pieces, error.code


@some
@given(chunks=CHUNKS, mode=MODES, data=st.data())
def test_every_slicing_decodes(chunks: list[bytes], mode: PayloadMode, data: st.DataObject) -> None:
    """However the network cuts a good body, its payload comes out, whole only at the end."""
    body = framed(chunks, mode)
    cuts = data.draw(st.lists(st.integers(0, len(body.stream)), max_size=8))
    subject = decoder(body)
    pieces, error = decode(subject, body.stream, cuts)
    assert (b"".join(pieces), error) == (body.payload, None)
    assert decode(decoder(body), body.stream, range(len(body.stream))) == (
        [body.payload[i : i + 1] for i in range(len(body.payload))],
        None,
    )


@some
@given(chunks=CHUNKS, mode=st.sampled_from([SIGNED, SIGNED_TRAILER]), data=st.data())
def test_every_changed_byte_of_a_signed_body_is_refused(
    chunks: list[bytes], mode: PayloadMode, data: st.DataObject
) -> None:
    """A changed byte means a refusal and a withheld last piece; only letter case and space outside of what is signed
    may differ, and then the payload is the same."""
    body = framed(chunks, mode)
    position = data.draw(st.integers(0, len(body.stream) - 1))
    changed = bytearray(body.stream)
    changed[position] ^= data.draw(st.integers(1, 255))
    cuts = data.draw(st.lists(st.integers(0, len(changed)), max_size=3))
    pieces, error = decode(decoder(body), bytes(changed), cuts)
    if error is None:
        assert position not in body.secret_offsets
        assert bytes(changed).lower().split() == body.stream.lower().split()
        assert b"".join(pieces) == body.payload
    else:
        assert len(b"".join(pieces)) < max(len(body.payload), 1)


@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER])
def test_no_byte_can_be_flipped_anywhere(mode: PayloadMode) -> None:
    """Each single byte of a signed body in turn: flipped in its lowest bit it is refused, the last piece withheld."""
    body = framed([b"first chunk", b"second"], mode)
    for position in range(len(body.stream)):
        changed = bytearray(body.stream)
        changed[position] ^= 1
        pieces, error = decode(decoder(body), bytes(changed), [len(body.stream) // 2])
        assert error is not None, position
        assert len(b"".join(pieces)) < len(body.payload)


@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])
@pytest.mark.parametrize("chunks", [[], [b"first chunk", b"second"]], ids=["empty", "two"])
def test_every_cut_is_refused(mode: PayloadMode, chunks: list[bytes]) -> None:
    """A body that ends anywhere before its end is incomplete, and its last piece stays withheld."""
    body = framed(chunks, mode)
    for end in range(len(body.stream)):
        pieces, error = decode(decoder(body), body.stream[:end], [end // 2])
        assert error == "IncompleteBody"
        assert not pieces or len(b"".join(pieces)) < len(body.payload)


@some
@given(chunks=CHUNKS.filter(bool), data=st.data())
def test_a_changed_payload_fails_its_trailing_checksum(chunks: list[bytes], data: st.DataObject) -> None:
    """Without signatures the checksum of the trailer guards every byte of the payload."""
    body = framed(chunks, UNSIGNED_TRAILER)
    position = data.draw(st.sampled_from(sorted(body.secret_offsets)))
    changed = bytearray(body.stream)
    changed[position] ^= data.draw(st.integers(1, 255))
    pieces, error = decode(decoder(body), bytes(changed))
    assert error == "BadDigest"
    assert len(b"".join(pieces)) < len(body.payload)


BODY = framed([b"first chunk", b"second"], UNSIGNED_TRAILER)
SIGNED_BODY = framed([b"first chunk", b"second"], SIGNED_TRAILER)
CRC = crc32(BODY.payload)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (BODY.stream + b"x", "InvalidRequest"),
        (BODY.stream + b"\r\n", "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"a\r\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"c\r\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"-b\r\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"0x0b\r\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b" b\r\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"\r\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"b;chunk-signature=00\r\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"b\n", 1), "InvalidRequest"),
        (BODY.stream.replace(b"b\r\n", b"f" * 16 + b"\r\n", 1), "IncompleteBody"),
        (BODY.stream.replace(b"b\r\n", b"f" * 17 + b"\r\n", 1), "InvalidRequest"),
        (b"0" * 5000, "InvalidRequest"),
        (BODY.stream.replace(CRC, b"AAAAAA=="), "BadDigest"),
        (BODY.stream.replace(CRC, b"AAAA"), "InvalidRequest"),
        (BODY.stream.replace(CRC, b""), "MalformedTrailerError"),
        (BODY.stream.replace(HEADER + b":" + CRC + b"\r\n", b""), "MalformedTrailerError"),
        (BODY.stream.replace(HEADER, b"x-amz-checksum-sha1"), "MalformedTrailerError"),
        (BODY.stream.replace(HEADER + b":", b"x-amz-meta-a:1\r\n" + HEADER + b":"), "MalformedTrailerError"),
        (BODY.stream.replace(HEADER + b":", HEADER + b":x\r\n" + HEADER + b":"), "MalformedTrailerError"),
        (BODY.stream.replace(HEADER + b":", HEADER), "MalformedTrailerError"),
        (BODY.stream.replace(CRC, b"A" * 17000), "MalformedTrailerError"),
        (BODY.stream.replace(CRC, b"A" * 17000)[:16900], "MalformedTrailerError"),
    ],
)
def test_bad_framing_without_signatures(stream: bytes, code: str) -> None:
    """Wrong sizes, line ends, trailers and caps each have their code, and the payload is never completed."""
    assert stream != BODY.stream
    pieces, error = decode(decoder(BODY), stream)
    assert error == code
    assert len(b"".join(pieces)) < len(BODY.payload)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (SIGNED_BODY.stream.replace(b"chunk-signature=", b"chunk-signature=0", 1), "SignatureDoesNotMatch"),
        (SIGNED_BODY.stream.replace(b";chunk-signature=", b";signature=", 1), "InvalidRequest"),
        (SIGNED_BODY.stream.replace(b"x-amz-trailer-signature:", b"x-amz-other:"), "MalformedTrailerError"),
        (
            SIGNED_BODY.stream.replace(b"x-amz-trailer-signature:", b"x-amz-trailer-signature:0"),
            "SignatureDoesNotMatch",
        ),
        (SIGNED_BODY.stream.partition(b"x-amz-trailer-signature")[0] + b"\r\n", "MalformedTrailerError"),
        (SIGNED_BODY.stream.replace(CRC, b"AAAAAA=="), "SignatureDoesNotMatch"),
        (BODY.stream, "InvalidRequest"),
    ],
)
def test_bad_signatures(stream: bytes, code: str) -> None:
    """A wrong or missing signature of a chunk or of the trailer is refused."""
    assert stream != SIGNED_BODY.stream
    assert decode(decoder(SIGNED_BODY), stream)[1] == code


def test_chunks_in_another_order_are_refused() -> None:
    """Each signature covers the one before it, so whole signed chunks cannot change places."""
    first, second, end = (framed([b"one", b"two"], SIGNED).stream.split(b"\r\n", 4)[i] for i in (0, 2, 4))
    stream = b"\r\n".join([second, b"two", first, b"one", end])
    assert decode(decoder(framed([b"one", b"two"], SIGNED)), stream) == ([], "SignatureDoesNotMatch")


def test_a_signed_body_with_a_wrong_checksum_is_refused() -> None:
    """A trailer that is signed but lies about the payload is a BadDigest."""
    body = frame([b"photo"], SIGNED_TRAILER, trailer=[(HEADER, b"AAAAAA==")])
    assert decode(decoder(body), body.stream) == ([], "BadDigest")


@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])
@pytest.mark.parametrize("off_by", [-1, 1])
def test_the_declared_length_binds_both_ways(mode: PayloadMode, off_by: int) -> None:
    """A body that is longer or shorter than declared is incomplete, and is not completed."""
    body = framed([b"first chunk", b"second"], mode)
    pieces, error = decode(decoder(body, length=len(body.payload) + off_by), body.stream)
    assert error == "IncompleteBody"
    assert len(b"".join(pieces)) < len(body.payload) + min(off_by, 0)


def test_checks_of_headers_hold_for_chunked_bodies() -> None:
    """A Content-MD5 beside signed chunks is of the decoded body, and is verified."""
    body = framed([b"photo"], SIGNED)
    good = Check("md5", b"content-md5", hashlib.md5(b"photo").digest())
    bad = Check("md5", b"content-md5", hashlib.md5(body.stream).digest())
    assert decode(decoder(body, checks=[good]), body.stream) == ([b"photo"], None)
    assert decode(decoder(body, checks=[bad]), body.stream) == ([], "BadDigest")


def test_a_failed_decoder_stays_failed() -> None:
    """After an error neither more bytes nor the end bring anything out."""
    subject = decoder(BODY)
    with pytest.raises(S3Error, match="InvalidRequest"):
        subject.feed(BODY.stream + b"x")
    for attempt in (lambda: subject.feed(b""), subject.finish):
        with pytest.raises(S3Error, match="InvalidRequest"):
            attempt()


def test_upper_case_sizes_and_a_stray_line_feed_are_understood() -> None:
    """Some clients write sizes in capitals, and some end a trailer's value with a line feed of its own."""
    stream = BODY.stream.replace(b"b\r\n", b"B\r\n", 1).replace(CRC, CRC + b"\n")
    assert decode(decoder(BODY), stream)[1] is None


def test_chunk_signatures_follow_the_request() -> None:
    """The chain begins with the request's own signature: a body cannot be moved under another request."""
    body = framed([b"photo"], SIGNED)
    moved = replace(body, verified=replace(body.verified, seed_signature="1" * 64))
    assert decode(decoder(moved), body.stream) == ([], "SignatureDoesNotMatch")


def request_of(**headers: bytes) -> RawRequest:
    return read_request("PUT", b"/photos/a", [(name.replace("_", "-").encode(), v) for name, v in headers.items()])


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "MissingContentLength"),
        ({"x_amz_decoded_content_length": b"-1"}, "InvalidArgument"),
        ({"x_amz_decoded_content_length": b"1_0"}, "InvalidArgument"),
        ({"x_amz_decoded_content_length": b"9" * 15}, "InvalidArgument"),
    ],
)
def test_bad_declared_lengths(headers: dict[str, bytes], code: str) -> None:
    """A chunked body must declare its decoded length, as a plain number within S3's limits."""
    with pytest.raises(S3Error, match=code):
        read_decoded_length(request_of(**headers))


def test_a_promised_trailer_is_expected() -> None:
    """The checks of a request with x-amz-trailer refuse a body without that trailer."""
    checks = read_checks(request_of(x_amz_trailer=HEADER), payload_sha256=None, has_trailer=True)
    stream = BODY.stream.replace(HEADER + b":" + CRC + b"\r\n", b"")
    assert decode(decoder(BODY, checks=checks), stream)[1] == "MalformedTrailerError"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"aws-chunked", None),
        (b"gzip,aws-chunked", b"gzip"),
        (b"AWS-Chunked, gzip, br", b"gzip,br"),
        (b" gzip ,  br", b" gzip ,  br"),
    ],
)
def test_framing_is_stripped_from_the_headers(value: bytes, kept: bytes | None) -> None:
    """aws-chunked goes token by token; a value without it stays byte by byte, and the framing's headers go."""
    headers = [
        (b"Content-Encoding", value),
        (b"X-Amz-Trailer", HEADER),
        (b"x-amz-meta-a", b"1"),
        (b"Content-Length", b"9"),
    ]
    expected = [(b"Content-Encoding", kept)] if kept is not None else []
    assert list(strip_framing(headers)) == [*expected, (b"x-amz-meta-a", b"1")]
