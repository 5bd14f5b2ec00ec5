"""Right signatures over wrong bodies: false by a byte, too short, too long, cut off, out of order, or with checksums
and lengths of something else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from random import Random

from tests.integration.wrong_requests.framing import CHECKSUMS, Frames, checksum
from tests.integration.wrong_requests.recipes import (
    COMPLETE,
    DELETE_MANY,
    HASH,
    PARTS,
    PUTS,
    UNSIGNED,
    Recipe,
    Sealed,
    World,
    seal,
)
from tests.integration.wrong_requests.signing import SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER
from tests.integration.wrong_requests.wire import Draft
from tests.integration.wrong_requests.wrongs import (
    ARGUMENT,
    DIGEST,
    INCOMPLETE,
    MISMATCH,
    NO_ANSWER,
    REQUEST,
    SILENT,
    TRAILER,
    Change,
    Wrong,
    changed,
    made,
    other_byte,
    other_digit,
)

HASH_MISMATCH = frozenset({"XAmzContentSHA256Mismatch"})
ANY_OF_A_STREAM = MISMATCH | REQUEST | INCOMPLETE | TRAILER | DIGEST
ChangeFrames = Callable[[Frames, Random], None]


def wrong_payloads(world: World, rng: Random) -> Iterator[Wrong]:
    for recipe in (*PUTS, *PARTS, COMPLETE, DELETE_MANY):
        if recipe.payload in (HASH, UNSIGNED):
            yield from changed(world, recipe, rng, _plain(recipe))
        else:
            yield from _framed(world, recipe, rng)
            yield from _lengths(world, recipe, rng)
            for number in range(12):
                yield _at_random(world, recipe, rng, number)
        for number in range(4):
            yield from _cut_off(world, recipe, rng, number)
    yield from _checksums(world, rng)
    yield from _replayed(world, rng)


def _plain(recipe: Recipe) -> dict[str, tuple[Change, frozenset[str]]]:
    codes = DIGEST if recipe.payload == UNSIGNED else HASH_MISMATCH
    if recipe is DELETE_MANY:
        codes = codes | DIGEST

    def flip(draft: Draft, rng: Random) -> None:
        draft.body = other_byte(draft.body, rng.randrange(len(draft.body)), rng)

    def cut(draft: Draft, rng: Random) -> None:
        draft.body = draft.body[: rng.randrange(1, len(draft.body))]

    def state_less(draft: Draft, rng: Random) -> None:
        draft.headers.append(("Content-Length", str(len(draft.body) - rng.randrange(1, 20))))

    def state_more(draft: Draft, rng: Random) -> None:
        draft.headers.append(("Content-Length", str(len(draft.body) + rng.randrange(1, 20))))

    def chunk(draft: Draft, rng: Random) -> None:
        flip(draft, rng)
        draft.headers.append(("Transfer-Encoding", "chunked"))
        draft.body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(draft.body), draft.body)

    def chunk_without_end(draft: Draft, rng: Random) -> None:
        draft.headers.append(("Transfer-Encoding", "chunked"))
        draft.body = b"%x\r\n%s\r\n" % (len(draft.body), draft.body)

    return {
        "first_byte": (lambda d, rng: setattr(d, "body", other_byte(d.body, 0, rng)), codes),
        "last_byte": (lambda d, rng: setattr(d, "body", other_byte(d.body, len(d.body) - 1, rng)), codes),
        "some_byte": (flip, codes),
        "another_byte": (flip, codes),
        "empty": (lambda d, _: setattr(d, "body", b""), codes),
        "short": (cut, codes),
        "shorter": (cut, codes),
        "byte_more": (lambda d, _: setattr(d, "body", d.body + b"\0"), codes),
        "twice": (lambda d, _: setattr(d, "body", d.body * 2), codes),
        "other": (lambda d, rng: setattr(d, "body", rng.randbytes(len(d.body))), codes),
        # Unless what is left over came in time to be taken for a second request.
        "states_less": (state_less, codes | {"BadRequest"}),
        "states_more": (state_more, SILENT),
        "states_no_length": (chunk, codes),
        "states_no_length_and_no_end": (chunk_without_end, SILENT),
    }


def _cut_off(world: World, recipe: Recipe, rng: Random, number: int) -> Iterator[Wrong]:
    """The client falls silent in the middle of the body, or goes."""
    for name, hangs_up, codes in (("falls_silent", False, SILENT), ("hangs_up", True, NO_ANSWER)):
        if hangs_up or number == 0:
            draft = made(world, recipe, rng).draft
            draft.sent, draft.hangs_up = rng.randrange(len(draft.body)), hangs_up
            yield Wrong(name=f"{recipe.name}.{name}_{number}", draft=draft, codes=codes)


def _framed(world: World, recipe: Recipe, rng: Random) -> Iterator[Wrong]:
    changes: dict[str, tuple[ChangeFrames, frozenset[str]]] = {
        "payload_byte": (_spoil_data, MISMATCH if recipe.payload != UNSIGNED_TRAILER else DIGEST),
        "size_less": (lambda f, _: _resize(f, -1), REQUEST | INCOMPLETE),
        "size_more": (lambda f, _: _resize(f, 1), REQUEST | INCOMPLETE),
        "size_huge": (lambda f, _: setattr(f.chunks[0], "size", "f" * 16), INCOMPLETE),
        "size_long": (lambda f, _: setattr(f.chunks[0], "size", "0" * 17 + "1"), REQUEST),
        "size_word": (lambda f, _: setattr(f.chunks[1], "size", "xyz"), REQUEST),
        "size_negative": (lambda f, _: setattr(f.chunks[1], "size", "-1"), REQUEST),
        "size_empty": (lambda f, _: setattr(f.chunks[1], "size", ""), REQUEST),
        "chunk_left_out": (lambda f, _: f.chunks.pop(1), MISMATCH | INCOMPLETE),
        "chunk_twice": (lambda f, _: f.chunks.insert(1, f.chunks[1]), MISMATCH | INCOMPLETE),
        "chunk_added": (lambda f, _: f.chunks.insert(-1, f.chunks[0]), MISMATCH | INCOMPLETE),
        "end_left_out": (lambda f, _: f.chunks.pop(), REQUEST | INCOMPLETE),
        "end_early": (lambda f, _: f.chunks.insert(1, f.chunks[-1]), INCOMPLETE),
        "end_missing_line": (lambda f, _: setattr(f, "end", b""), INCOMPLETE),
        "end_and_more": (lambda f, _: setattr(f, "end", b"\r\nmore"), REQUEST),
        "trailer_unknown": (lambda f, _: f.trailer.append("x-amz-meta-a:two"), TRAILER),
        "trailer_no_colon": (lambda f, _: f.trailer.append("x-amz-checksum-crc32"), TRAILER),
        "trailer_long": (lambda f, _: f.trailer.append("x" * 20_000), TRAILER),
    }
    if recipe.payload != UNSIGNED_TRAILER:
        changes |= _signed_chunks()
    else:
        changes["chunk_signed"] = (lambda f, _: setattr(f.chunks[0], "signature", "0" * 64), REQUEST)
    if recipe.payload != SIGNED:
        changes |= _trailers(recipe.payload == SIGNED_TRAILER)
    for name, (change, codes) in changes.items():
        sealed = made(world, recipe, rng)
        assert sealed.frames is not None
        change(sealed.frames, rng)
        sealed.frame_anew()
        yield Wrong(name=f"{recipe.name}.{name}", draft=sealed.draft, codes=codes)


def _signed_chunks() -> dict[str, tuple[ChangeFrames, frozenset[str]]]:
    def spoil(index: int) -> ChangeFrames:
        def change(frames: Frames, rng: Random) -> None:
            frames.chunks[index].signature = other_digit(frames.chunks[index].signature, rng)

        return change

    def swap(frames: Frames, _: Random) -> None:
        frames.chunks[0], frames.chunks[1] = frames.chunks[1], frames.chunks[0]

    def swap_signatures(frames: Frames, _: Random) -> None:
        one, two = frames.chunks[0], frames.chunks[1]
        one.signature, two.signature = two.signature, one.signature

    return {
        "chunk_order": (swap, MISMATCH),
        "signature_order": (swap_signatures, MISMATCH),
        "first_signature": (spoil(0), MISMATCH),
        "middle_signature": (spoil(2), MISMATCH),
        "last_signature": (spoil(-1), MISMATCH),
        "signature_gone": (lambda f, _: setattr(f.chunks[1], "signature", ""), REQUEST),
        "last_signature_gone": (lambda f, _: setattr(f.chunks[-1], "signature", ""), REQUEST),
        "signature_long": (lambda f, _: setattr(f.chunks[0], "signature", "0" * 5000), REQUEST),
    }


def _trailers(is_signed: bool) -> dict[str, tuple[ChangeFrames, frozenset[str]]]:
    wrong_value = MISMATCH if is_signed else DIGEST
    changes: dict[str, tuple[ChangeFrames, frozenset[str]]] = {
        "trailer_value": (lambda f, _: _retrail(f, "x-amz-checksum-crc32:AAAAAA=="), wrong_value),
        "trailer_malformed": (lambda f, _: _retrail(f, "x-amz-checksum-crc32:!"), MISMATCH if is_signed else REQUEST),
        "trailer_other_name": (lambda f, _: _retrail(f, "x-amz-checksum-sha1:AAAAAA=="), TRAILER),
        "trailer_gone": (lambda f, _: f.trailer.pop(0), TRAILER | wrong_value),
        "trailer_twice": (lambda f, _: f.trailer.insert(0, f.trailer[0]), TRAILER),
        "trailers_gone": (lambda f, _: f.trailer.clear(), TRAILER),
    }
    if not is_signed:
        signature = "x-amz-trailer-signature:" + "0" * 64
        return changes | {"trailer_signed": (lambda f, _: f.trailer.append(signature), TRAILER)}

    def spoil(frames: Frames, rng: Random) -> None:
        name, _, signature = frames.trailer[-1].partition(":")
        frames.trailer[-1] = f"{name}:{other_digit(signature, rng)}"

    return changes | {
        "trailer_signature": (spoil, MISMATCH),
        "trailer_signature_gone": (lambda f, _: f.trailer.pop(), TRAILER),
        "trailer_signature_twice": (lambda f, _: f.trailer.append(f.trailer[-1]), TRAILER),
    }


def _lengths(world: World, recipe: Recipe, rng: Random) -> Iterator[Wrong]:
    """Signed together with the rest, but not the length of what comes."""
    length = len(world.photo)
    for stated, codes in {
        str(length - 1): INCOMPLETE,
        str(length + 1): INCOMPLETE,
        str(length * 1000): INCOMPLETE,
        "0": INCOMPLETE,
        "-1": ARGUMENT,
        "1e3": ARGUMENT,
        "9" * 16: ARGUMENT,
        "many": ARGUMENT,
    }.items():
        draft = recipe.make(world, world.pick_key(rng), world.photo)
        draft.headers.append(("x-amz-decoded-content-length", stated))
        sealed = seal(world, recipe, draft, world.who)
        yield Wrong(name=f"{recipe.name}.states_{stated[:8]}", draft=sealed.draft, codes=codes)
    if recipe.payload != SIGNED:
        draft = recipe.make(world, world.pick_key(rng), world.photo)
        draft.headers.append(("x-amz-trailer", "x-amz-meta-a"))
        yield Wrong(
            name=f"{recipe.name}.trailer_promised", draft=seal(world, recipe, draft, world.who).draft, codes=REQUEST
        )
        draft = recipe.make(world, world.pick_key(rng), world.photo)
        sealed = seal(world, recipe, draft, world.who, algorithm="")
        yield Wrong(name=f"{recipe.name}.trailer_of_nothing", draft=sealed.draft, codes=TRAILER)


def _checksums(world: World, rng: Random) -> Iterator[Wrong]:
    """Signed headers that promise something else than the body."""
    recipe, data = PUTS[0], world.photo
    right = {name: checksum(name, data) for name in CHECKSUMS}
    cases: list[tuple[str, list[tuple[str, str]], frozenset[str]]] = [
        ("md5_other", [("content-md5", base64.b64encode(hashlib.md5(b"x").digest()).decode())], DIGEST),
        ("md5_short", [("content-md5", "AAAA")], frozenset({"InvalidDigest"})),
        ("md5_word", [("content-md5", "not base64")], frozenset({"InvalidDigest"})),
        ("two", [(f"x-amz-checksum-{name}", right[name]) for name in ("crc32", "sha1")], REQUEST),
        ("announced", [("x-amz-checksum-crc32", right["crc32"]), ("x-amz-sdk-checksum-algorithm", "SHA1")], REQUEST),
        ("loose", [("x-amz-checksum-crc32", _loosened(right["crc32"]))], DIGEST),
    ]
    for name, value in right.items():
        other = checksum(name, data[::-1])
        cases.append((f"{name}_other", [(f"x-amz-checksum-{name}", other)], DIGEST))
        cases.append((f"{name}_short", [(f"x-amz-checksum-{name}", value[:-4])], DIGEST))
    for name, headers, codes in cases:
        draft = recipe.make(world, world.pick_key(rng), data)
        draft.headers += headers
        yield Wrong(name=f"checksum.{name}", draft=seal(world, recipe, draft, world.who).draft, codes=codes)
    for name in CHECKSUMS:
        for framed in PUTS[3:]:
            sealed = made(world, framed, rng, algorithm=name)
            assert sealed.frames is not None
            _spoil_data(sealed.frames, rng)
            sealed.frame_anew()
            codes = MISMATCH if framed.payload == SIGNED_TRAILER else DIGEST
            yield Wrong(name=f"{framed.name}.{name}", draft=sealed.draft, codes=codes)


def _replayed(world: World, rng: Random) -> Iterator[Wrong]:
    """The signed chunks of one upload behind the signature of another one."""
    for recipe in (PUTS[2], PUTS[3], PARTS[1]):
        for number in range(4):
            first, second = (_sealed_photo(world, recipe, rng) for _ in range(2))
            second.draft.body = first.draft.body
            if first.chain.seed != second.chain.seed:
                yield Wrong(name=f"{recipe.name}.replayed_{number}", draft=second.draft, codes=MISMATCH)


def _sealed_photo(world: World, recipe: Recipe, rng: Random) -> Sealed:
    draft = recipe.make(world, f"new/{rng.randrange(1 << 40):010x}.jpg", world.photo)
    draft.set("x-amz-meta-a", f"{rng.randrange(1 << 40)}")
    return seal(world, recipe, draft, world.who)


def _at_random(world: World, recipe: Recipe, rng: Random, number: int) -> Wrong:
    """One byte of the framed body is another one, or the body ends somewhere."""
    draft = made(world, recipe, rng).draft
    position = rng.randrange(len(draft.body))
    if number % 3 == 0:
        draft.body = draft.body[:position]
        return Wrong(name=f"{recipe.name}.ends_{number}", draft=draft, codes=INCOMPLETE)
    draft.body = other_byte(draft.body, position, rng)
    return Wrong(name=f"{recipe.name}.byte_{number}", draft=draft, codes=ANY_OF_A_STREAM)


def _spoil_data(frames: Frames, rng: Random) -> None:
    chunk = frames.chunks[rng.randrange(len(frames.chunks) - 1)]
    chunk.data = other_byte(chunk.data, rng.randrange(len(chunk.data)), rng)


def _resize(frames: Frames, by: int) -> None:
    frames.chunks[1].size = f"{len(frames.chunks[1].data) + by:x}"


def _retrail(frames: Frames, line: str) -> None:
    frames.trailer[0] = line


def _loosened(text: str) -> str:
    """The same bytes in a base64 that no encoder writes."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = text.rstrip("=")[-1]
    return text.rstrip("=")[:-1] + letters[letters.index(last) ^ 1] + "=" * (len(text) - len(text.rstrip("=")))
