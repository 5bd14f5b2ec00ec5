"""Wrong presigned URLs, V4 and V2: whoever holds one may do with it what was signed, and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from random import Random
from urllib.parse import quote

from tests.integration.wrong_requests.framing import CHECKSUMS, checksum
from tests.integration.wrong_requests.recipes import World
from tests.integration.wrong_requests.signing import Signature, sha256, sign_query, sign_query_v2
from tests.integration.wrong_requests.wire import Draft
from tests.integration.wrong_requests.wrongs import (
    ANY_OF_A_SIGNATURE,
    ARGUMENT,
    DENIED,
    DIGEST,
    MISMATCH,
    MISSING,
    PARAMETERS,
    REQUEST,
    SILENT,
    UNKNOWN,
    Change,
    Wrong,
    other_character,
    other_digit,
)

Sign = Callable[..., None]
EXPIRED = DENIED


def draft_of(world: World, rng: Random) -> Draft:
    return Draft(
        method="PUT",
        path=world.path(world.pick_key(rng)),
        headers=[("content-type", "image/jpeg"), ("x-amz-meta-a", "one")],
        body=world.pick_data(rng),
    )


def wrong_addresses(world: World, rng: Random) -> Iterator[Wrong]:
    for version, sign in (("v4", sign_query), ("v2", sign_query_v2)):
        changes = _of_both(world) | (_of_v4(world) if version == "v4" else _of_v2(world))
        for name, (change, codes) in changes.items():
            draft = draft_of(world, rng)
            sign(draft, world.host, world.who)
            change(draft, rng)
            yield Wrong(name=f"presigned_{version}.{name}", draft=draft, codes=codes)
        yield from _signed_wrongly(world, rng, version, sign)
        for number in range(15):
            draft = draft_of(world, rng)
            sign(draft, world.host, world.who)
            name, value = draft.query[index := rng.randrange(len(draft.query))]
            position = rng.choice([i for i, letter in enumerate(value or "") if letter.isalnum()])
            draft.query[index] = name, other_character(value or "", position, rng, "0123456789bcdghijklmn")
            yield Wrong(name=f"presigned_{version}.random_{number}", draft=draft, codes=ANY_OF_A_SIGNATURE)
    yield from _of_v4_alone(world, rng)
    for number, expires in enumerate((-1, -3600, 604_801 + 60, 10**9)):
        draft = draft_of(world, rng)
        sign_query_v2(draft, world.host, world.who, expires_in=expires)
        yield Wrong(name=f"presigned_v2.expires_{number}", draft=draft, codes=EXPIRED)


def _signed_wrongly(world: World, rng: Random, version: str, sign: Sign) -> Iterator[Wrong]:
    who = world.who
    signers: dict[str, tuple[Signature, frozenset[str]]] = {
        "secret_wrong": (replace(who, secret_key="x" * 40), MISMATCH),
        "secret_of_other": (replace(who, secret_key=world.other.secret_key), MISMATCH),
        "by_unknown": (replace(who, access_key="SLNOBODYNOBODYNOBODY"), UNKNOWN),
        "by_revoked": (world.revoked, UNKNOWN),
        "by_expired": (world.expired, UNKNOWN),
        "by_reader": (world.reader, DENIED),
        "by_somebody_elsewhere": (world.elsewhere, DENIED),
        "old": (replace(who, late=timedelta(minutes=-rng.randrange(11, 6000))), EXPIRED),
    }
    for name, (signer, codes) in signers.items():
        draft = draft_of(world, rng)
        sign(draft, world.host, signer)
        yield Wrong(name=f"presigned_{version}.{name}", draft=draft, codes=codes)


def _of_both(world: World) -> dict[str, tuple[Change, frozenset[str]]]:
    def longer(draft: Draft, rng: Random) -> None:
        draft.headers.append(("Content-Length", str(len(draft.body) + rng.randrange(1, 99))))

    def path(old: str, new: str) -> Change:
        return lambda draft, _: setattr(draft, "path", draft.path.replace(old, new))

    md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    return {
        "method_delete": (lambda d, _: setattr(d, "method", "DELETE"), MISMATCH),
        "method_post": (lambda d, _: setattr(d, "method", "POST"), MISMATCH),
        "method_get": (lambda d, _: setattr(d, "method", "GET"), MISMATCH),
        "bucket": (path(world.bucket, world.other_bucket), MISMATCH),
        "key": (path(".jpg", ".jpeg"), MISMATCH),
        "key_case": (path(".jpg", ".JPG"), MISMATCH),
        "key_up": (path(world.bucket, f"{world.bucket}/x/.."), MISMATCH),
        "key_slash": (path(f"{world.bucket}/", f"{world.bucket}//"), MISMATCH),
        "sub_acl": (lambda d, _: d.query.append(("acl", None)), MISMATCH),
        "sub_tagging": (lambda d, _: d.query.append(("tagging", None)), MISMATCH),
        "sub_version": (lambda d, _: d.query.append(("versionId", "1")), MISMATCH),
        "sub_part": (lambda d, _: d.query.extend([("partNumber", "1"), ("uploadId", "x")]), MISMATCH),
        "content_type": (lambda d, _: d.set("content-type", "text/html"), MISMATCH),
        "header_value": (lambda d, _: d.set("x-amz-meta-a", "two"), MISMATCH),
        "header_gone": (lambda d, _: d.drop("x-amz-meta-a"), MISMATCH),
        "header_added": (lambda d, _: d.headers.append(("x-amz-acl", "public-read")), DENIED | MISMATCH),
        "copy_source": (
            lambda d, _: d.headers.append(("x-amz-copy-source", f"/{world.bucket}/{world.source}")),
            DENIED | MISMATCH,
        ),
        "copy_source_in_query": (
            lambda d, _: d.query.append(("x-amz-copy-source", f"{world.bucket}%2F{world.source}")),
            MISMATCH,
        ),
        "md5_added": (lambda d, _: d.headers.append(("content-md5", md5)), DIGEST | MISMATCH),
        "hash_added": (lambda d, _: d.headers.append(("x-amz-content-sha256", sha256(b"x"))), DENIED | MISMATCH),
        "hash_in_query": (lambda d, _: d.query.append(("X-Amz-Content-Sha256", sha256(b"x"))), MISMATCH),
        "states_more": (longer, SILENT),
        "states_no_length_and_no_end": (
            lambda d, _: (d.headers.append(("Transfer-Encoding", "chunked")), setattr(d, "body", b"4\r\nabcd\r\n")),
            SILENT,
        ),
        "hangs_up": (
            lambda d, rng: (setattr(d, "hangs_up", True), setattr(d, "sent", rng.randrange(len(d.body)))),
            frozenset({""}),
        ),
        "and_header": (
            lambda d, _: d.headers.append(("Authorization", "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b")),
            ARGUMENT,
        ),
    }


def _of_v4(world: World) -> dict[str, tuple[Change, frozenset[str]]]:
    def put(name: str, value: str) -> Change:
        return lambda draft, _: draft.set_parameter(f"X-Amz-{name}", value)

    def spoil(draft: Draft, rng: Random) -> None:
        draft.set_parameter("X-Amz-Signature", other_digit(draft.parameter("X-Amz-Signature"), rng))

    def other_key(draft: Draft, _: Random) -> None:
        scope = draft.parameter("X-Amz-Credential").partition("%2F")[2]
        draft.set_parameter("X-Amz-Credential", f"{world.other.access_key}%2F{scope}")

    names = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
    gone = {f"no_{name}": (_dropper(f"X-Amz-{name}"), PARAMETERS) for name in names}
    twice = {f"{name}_twice": (_doubler(f"X-Amz-{name}"), PARAMETERS) for name in names}
    return {
        **gone,
        **twice,
        "signature": (spoil, MISMATCH),
        "other_key": (other_key, MISMATCH),
        "credential": (put("Credential", "nobody"), PARAMETERS),
        "date": (put("Date", "20200101T000000Z"), PARAMETERS),
        "date_word": (put("Date", "today"), PARAMETERS),
        "longer": (put("Expires", "601"), MISMATCH),
        "zero": (put("Expires", "0"), PARAMETERS),
        "week_and_more": (put("Expires", "604801"), PARAMETERS),
        "negative": (put("Expires", "-1"), PARAMETERS),
        "word": (put("Expires", "soon"), PARAMETERS),
        "names_no_host": (put("SignedHeaders", "content-type%3Bx-amz-meta-a"), DENIED),
        "names_no_meta": (put("SignedHeaders", "content-type%3Bhost"), DENIED),
        "names_no_type": (put("SignedHeaders", "host%3Bx-amz-meta-a"), MISMATCH),
        "names_twice": (put("SignedHeaders", "host%3Bhost%3Bx-amz-meta-a"), PARAMETERS),
        "ecdsa": (put("Algorithm", "AWS4-ECDSA-P256-SHA256"), MISSING),
        "sha1": (put("Algorithm", "AWS4-HMAC-SHA1"), PARAMETERS),
        "parameter": (lambda d, _: d.query.append(("x-id", "PutObject")), MISMATCH),
        "acl_in_query": (lambda d, _: d.query.append(("x-amz-acl", "public-read")), MISMATCH),
        "and_v2": (
            lambda d, _: d.query.extend([("AWSAccessKeyId", world.who.access_key), ("Signature", "x")]),
            ARGUMENT,
        ),
        "token": (lambda d, _: d.query.append(("X-Amz-Security-Token", "token")), MISMATCH),
    }


def _of_v4_alone(world: World, rng: Random) -> Iterator[Wrong]:
    def wrong(name: str, codes: frozenset[str], *, by: Signature | None = None, **more: str) -> Wrong:
        draft = draft_of(world, rng)
        draft.query += [(key.replace("_", "-"), value) for key, value in more.items() if key != "expires"]
        sign_query(draft, world.host, by or world.who, expires=more.get("expires", "600"))
        return Wrong(name=f"presigned_v4.{name}", draft=draft, codes=codes)

    early = replace(world.who, late=timedelta(minutes=rng.randrange(16, 6000)))
    yield wrong("early", DENIED, by=early)
    yield wrong("service", PARAMETERS, by=replace(world.who, service="iam"))
    yield wrong("terminator", PARAMETERS, by=replace(world.who, terminator="aws5"))
    yield wrong("day", PARAMETERS, by=replace(world.who, date="20200101"))
    yield wrong("signed_zero", PARAMETERS, expires="0")
    yield wrong("signed_fortnight", PARAMETERS, expires="1209600")
    yield wrong("host_not_signed", DENIED, by=replace(world.who, leaves_out=("host",)))
    yield wrong("header_not_signed", DENIED, by=replace(world.who, leaves_out=("x-amz-meta-a",)))
    pinned = sha256(b"other")
    yield wrong("pinned_hash", frozenset({"XAmzContentSHA256Mismatch"}), X_Amz_Content_Sha256=pinned)
    for name in CHECKSUMS:
        value = quote(checksum(name, b"other"), safe="")
        yield wrong(f"pinned_{name}", DIGEST, **{f"x_amz_checksum_{name}": value})
    yield wrong("pinned_chunks", ARGUMENT, X_Amz_Content_Sha256="STREAMING-SOMETHING")


def _of_v2(world: World) -> dict[str, tuple[Change, frozenset[str]]]:
    def put(name: str, value: str) -> Change:
        return lambda draft, _: draft.set_parameter(name, value)

    def spoil(draft: Draft, rng: Random) -> None:
        draft.set_parameter("Signature", other_character(draft.parameter("Signature"), 3, rng))

    def later(draft: Draft, _: Random) -> None:
        draft.set_parameter("Expires", str(int(draft.parameter("Expires")) + 60))

    return {
        "signature": (spoil, MISMATCH),
        "signature_empty": (put("Signature", ""), DENIED),
        "no_signature": (_dropper("Signature"), DENIED),
        "no_expires": (_dropper("Expires"), DENIED),
        "no_key": (_dropper("AWSAccessKeyId"), DENIED),
        "signature_twice": (_doubler("Signature"), ARGUMENT),
        "expires_twice": (_doubler("Expires"), ARGUMENT),
        "later": (later, MISMATCH),
        "expires_word": (put("Expires", "never"), DENIED),
        "expires_past": (put("Expires", "1000000000"), EXPIRED),
        "expires_far": (put("Expires", "99999999999"), DENIED),
        "other_key": (put("AWSAccessKeyId", world.other.access_key), MISMATCH),
        "unknown_key": (put("AWSAccessKeyId", "SLNOBODYNOBODYNOBODY"), UNKNOWN),
        "revoked_key": (put("AWSAccessKeyId", world.revoked.access_key), UNKNOWN),
        "uncovered": (lambda d, _: d.query.append(("attributes", None)), DENIED),
        "uncovered_retention": (lambda d, _: d.query.append(("retention", None)), DENIED),
        "acl_in_query": (lambda d, _: d.query.append(("x-amz-acl", "public-read")), MISMATCH),
        "type_in_query": (
            lambda d, _: (d.drop("content-type"), d.query.append(("content-type", "text%2Fhtml"))),
            MISMATCH,
        ),
        "signed_chunks": (
            lambda d, _: d.headers.append(("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
            REQUEST,
        ),
        "and_v4": (lambda d, _: d.query.append(("X-Amz-Signature", "0" * 64)), ARGUMENT),
    }


def _dropper(name: str) -> Change:
    return lambda draft, _: draft.drop_parameter(name)


def _doubler(name: str) -> Change:
    return lambda draft, _: draft.query.append((name, draft.parameter(name)))
