"""Wrong requests that are signed by V4 in the Authorization header: whatever is changed after the signature was made,
and signatures that were made wrongly from the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from random import Random

from tests.integration.wrong_requests.recipes import ALL, COPY, STORING, UNSIGNED, Recipe, World, seal
from tests.integration.wrong_requests.signing import sha256
from tests.integration.wrong_requests.wire import Draft
from tests.integration.wrong_requests.wrongs import (
    ANY_OF_A_SIGNATURE,
    ARGUMENT,
    DENIED,
    MALFORMED,
    MISMATCH,
    MISSING,
    REQUEST,
    SKEWED,
    UNKNOWN,
    Change,
    Wrong,
    changed,
    made,
    other_character,
    other_digit,
)

SHA = "x-amz-content-sha256"
DATE = "x-amz-date"
AUTH = "Authorization"
ADDED = {
    "x-amz-acl": "public-read-write",
    "x-amz-meta-b": "two",
    "x-amz-tagging": "a=b",
    "x-amz-storage-class": "STANDARD",
    "x-amz-security-token": "token",
    "x-amz-website-redirect-location": "http://127.0.0.1/",
    "x-amz-grant-full-control": "id=1",
}
QUERIES = ("acl", "tagging", "uploads", "versionId=1", "x-id=PutObject", "attributes", "delete", "restore", "prefix=a")


def wrong_headers(world: World, rng: Random) -> Iterator[Wrong]:
    for recipe in ALL:
        yield from changed(world, recipe, rng, _wherever(world, recipe))
        yield from changed(world, recipe, rng, _authorization(world))
        yield from _each_signed(world, recipe, rng)
        yield from _signed_wrongly(world, recipe, rng)
    for recipe in STORING:
        yield from changed(world, recipe, rng, _of_objects(world))
        for number in range(8):
            yield _at_random(world, recipe, rng, number)
    yield from changed(world, COPY, rng, _of_copies(world))


def _wherever(world: World, recipe: Recipe) -> dict[str, tuple[Change, frozenset[str]]]:
    other_method = {"PUT": "DELETE", "POST": "PUT", "DELETE": "PUT"}
    no_payload = "UNSIGNED-PAYLOAD" if recipe.payload != UNSIGNED else "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    return {
        "method": (lambda d, _: setattr(d, "method", other_method[d.method]), MISMATCH),
        "method_post": (lambda d, _: setattr(d, "method", {"POST": "GET"}.get(d.method, "POST")), MISMATCH),
        "path_bucket": (lambda d, _: setattr(d, "path", d.path.replace(world.bucket, world.other_bucket)), MISMATCH),
        "path_character": (_path_character, MISMATCH),
        "path_slash": (lambda d, _: setattr(d, "path", d.path + "/"), MISMATCH),
        "query_added": (lambda d, rng: d.query.append(_query(rng.choice(QUERIES))), MISMATCH),
        "query_header": (lambda d, _: d.query.append(("x-amz-acl", "public-read")), MISMATCH),
        "host": (lambda d, _: d.set("Host", "photos.example.org"), MISMATCH),
        "date_second": (lambda d, _: d.set(DATE, _other_second(d.header(DATE))), MISMATCH),
        "date_day": (lambda d, _: d.set(DATE, "20200101" + d.header(DATE)[8:]), MALFORMED),
        "date_word": (lambda d, _: d.set(DATE, "yesterday"), DENIED),
        "date_gone": (lambda d, _: d.drop(DATE), DENIED),
        "date_twice": (lambda d, _: d.headers.append((DATE, d.header(DATE))), ARGUMENT),
        "hash_other": (lambda d, _: d.set(SHA, sha256(b"other")), MISMATCH),
        "hash_waived": (lambda d, _: d.set(SHA, no_payload), MISMATCH),
        "hash_gone": (lambda d, _: d.drop(SHA), REQUEST),
        "hash_word": (lambda d, _: d.set(SHA, "PAYLOAD"), ARGUMENT),
        "hash_short": (lambda d, _: d.set(SHA, "ab" * 31), ARGUMENT),
        "hash_ecdsa": (lambda d, _: d.set(SHA, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), MISSING),
        "hash_twice": (lambda d, _: d.headers.append((SHA, d.header(SHA))), ARGUMENT),
        "header_value": (lambda d, _: d.set("x-amz-meta-a", "two"), MISMATCH),
        "header_gone": (lambda d, _: d.drop("x-amz-meta-a"), MISMATCH),
        "header_twice": (lambda d, _: d.headers.append(("x-amz-meta-a", "two")), MISMATCH),
        "header_added": (lambda d, rng: d.headers.append(rng.choice(list(ADDED.items()))), DENIED),
        "query_and_header": (lambda d, _: d.query.append(("X-Amz-Signature", "0" * 64)), ARGUMENT),
        "v2_and_header": (lambda d, _: d.query.append(("AWSAccessKeyId", world.who.access_key)), ARGUMENT),
    }


def _of_objects(world: World) -> dict[str, tuple[Change, frozenset[str]]]:
    return {
        **{f"added_{name}": (_adder(name, value), DENIED) for name, value in ADDED.items()},
        "path_double_slash": (lambda d, _: setattr(d, "path", d.path.replace("/", "//", 2)[1:]), MISMATCH),
        "path_dot": (lambda d, _: setattr(d, "path", d.path.replace(world.bucket, f"{world.bucket}/.")), MISMATCH),
        "path_up": (lambda d, _: setattr(d, "path", d.path.replace(world.bucket, f"{world.bucket}/x/..")), MISMATCH),
        "path_case": (lambda d, _: setattr(d, "path", d.path.replace(".jpg", ".JPG")), MISMATCH),
        "path_encoded_twice": (lambda d, _: setattr(d, "path", d.path.replace(".jpg", "%252Ejpg")), MISMATCH),
        "upload_id": (lambda d, _: d.query.extend([("partNumber", "1"), ("uploadId", "x")]), MISMATCH),
    }


def _of_copies(world: World) -> dict[str, tuple[Change, frozenset[str]]]:
    source = "x-amz-copy-source"
    return {
        "source_other": (lambda d, _: d.set(source, f"/{world.bucket}/{world.kept[0]}"), MISMATCH),
        "source_gone": (lambda d, _: d.drop(source), MISMATCH),
        "source_twice": (lambda d, _: d.headers.append((source, d.header(source))), MISMATCH | ARGUMENT),
        "source_version": (lambda d, _: d.set(source, d.header(source) + "?versionId=1"), MISMATCH),
        "source_range": (lambda d, _: d.headers.append(("x-amz-copy-source-range", "bytes=0-1")), DENIED),
        "directive": (lambda d, _: d.headers.append(("x-amz-metadata-directive", "REPLACE")), DENIED),
    }


def _authorization(world: World) -> dict[str, tuple[Change, frozenset[str]]]:
    who = world.who.access_key

    def put(pattern: str, new: str) -> Change:
        def change(draft: Draft, _: Random) -> None:
            text, times = re.subn(pattern, new, draft.header(AUTH))
            assert times, pattern
            draft.set(AUTH, text)

        return change

    def spoil(draft: Draft, rng: Random) -> None:
        head, _, signature = draft.header(AUTH).rpartition("=")
        draft.set(AUTH, f"{head}={other_digit(signature, rng)}")

    return {
        "signature_digit": (spoil, MISMATCH),
        "signature_short": (put(".{8}$", ""), MISMATCH),
        "signature_long": (put("$", "00"), MISMATCH),
        "signature_upper": (lambda d, _: d.set(AUTH, _upper_signature(d.header(AUTH))), MISMATCH),
        "signature_empty": (put("Signature=.*", "Signature="), MISMATCH | MALFORMED),
        "signature_gone": (put(", Signature=.*", ""), MALFORMED),
        "signature_twice": (put("$", ", Signature=" + "0" * 64), MALFORMED),
        "key_unknown": (put(f"={who}/", "=SLNOBODYNOBODYNOBOD/"), UNKNOWN),
        "key_other": (put(f"={who}/", f"={world.other.access_key}/"), MISMATCH),
        "key_revoked": (put(f"={who}/", f"={world.revoked.access_key}/"), UNKNOWN),
        "key_expired": (put(f"={who}/", f"={world.expired.access_key}/"), UNKNOWN),
        "key_empty": (put(f"={who}/", "=/"), MALFORMED),
        "scope_date": (put("/20[0-9]{6}/", "/20200101/"), MALFORMED),
        "scope_region": (put("/us-east-1/", "/eu-west-1/"), MISMATCH),
        "scope_service": (put("/s3/", "/s3express/"), MALFORMED),
        "scope_end": (put("/aws4_request", "/aws5_request"), MALFORMED),
        "scope_short": (put("/us-east-1/s3", "/s3"), MALFORMED),
        "names_no_host": (put("host;", ""), DENIED),
        "names_no_date": (put(";x-amz-date", ""), DENIED),
        "names_no_meta": (put(";x-amz-meta-a", ""), DENIED),
        "names_more": (put(";x-amz-date", ";x-amz-date;x-amz-none"), MISMATCH),
        "names_twice": (put(";x-amz-date", ";x-amz-date;x-amz-date"), MALFORMED),
        "names_empty": (put("SignedHeaders=[^,]*", "SignedHeaders="), MALFORMED),
        "algorithm_ecdsa": (put("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), MISSING),
        "algorithm_sha1": (put("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), MALFORMED),
        "version_2": (lambda d, _: d.set(AUTH, f"AWS {who}:c2lnbmF0dXJl"), REQUEST),
        "bearer": (lambda d, _: d.set(AUTH, f"Bearer {who}.{world.who.secret_key}"), ARGUMENT),
        "basic": (lambda d, _: d.set(AUTH, "Basic dXNlcjpwYXNzd29yZA=="), ARGUMENT),
        "gone": (lambda d, _: d.drop(AUTH), DENIED),
        "empty": (lambda d, _: d.set(AUTH, ""), DENIED),
        "twice": (lambda d, _: d.headers.append((AUTH, d.header(AUTH))), ARGUMENT),
        "words": (lambda d, _: d.set(AUTH, "AWS4-HMAC-SHA256 let me in"), MALFORMED),
    }


def _signed_wrongly(world: World, recipe: Recipe, rng: Random) -> Iterator[Wrong]:
    minutes = rng.randrange(16, 60 * 24)
    today, who = world.who.amz_date[:8], world.who
    signers = {
        "secret_wrong": (replace(who, secret_key=other_character(who.secret_key, 5, rng)), MISMATCH),
        "secret_of_other": (replace(who, secret_key=world.other.secret_key), MISMATCH),
        "by_unknown": (replace(who, access_key="SLNOBODYNOBODYNOBODY"), UNKNOWN),
        "by_revoked": (world.revoked, UNKNOWN),
        "by_expired": (world.expired, UNKNOWN),
        "by_reader": (world.reader, DENIED),
        "by_somebody_elsewhere": (world.elsewhere, DENIED),
        "late": (replace(who, late=timedelta(minutes=-minutes)), SKEWED),
        "early": (replace(who, late=timedelta(minutes=minutes)), SKEWED),
        "scope_of_another_day": (replace(who, date=str(int(today) - 1)), MALFORMED),
        "service_iam": (replace(who, service="iam"), MALFORMED),
        "terminator": (replace(who, terminator="aws4"), MALFORMED),
        "algorithm": (replace(who, algorithm="AWS4-HMAC-SHA512"), MALFORMED),
        "host_not_signed": (replace(who, leaves_out=("host",)), DENIED),
        "date_not_signed": (replace(who, leaves_out=("x-amz-date",)), DENIED),
        "hash_not_signed": (replace(who, leaves_out=("x-amz-content-sha256",)), DENIED),
        "header_not_signed": (replace(who, leaves_out=("x-amz-meta-a",)), DENIED),
    }
    for name, (signer, codes) in signers.items():
        yield Wrong(name=f"{recipe.name}.{name}", draft=made(world, recipe, rng, signer).draft, codes=codes)


def _each_signed(world: World, recipe: Recipe, rng: Random) -> Iterator[Wrong]:
    """Every signed header but those that the signature itself is made of: changed, gone, and there twice."""
    stated = made(world, recipe, rng).draft.header(AUTH).partition("SignedHeaders=")[2].partition(",")[0]
    for name in sorted(set(stated.split(";")) - {"host", DATE, SHA}):
        for what in ("changed", "gone", "twice"):
            # Small: what is no HTTP is answered at once, and who still sends then may lose the answer to a reset.
            draft = seal(world, recipe, recipe.make(world, world.pick_key(rng), world.photo), world.who).draft
            value = draft.header(name)
            if what == "twice":
                draft.headers.append((name, value))
            else:
                draft.drop(name)
            if what == "changed":
                index = rng.choice([i for i, letter in enumerate(value) if letter.isalnum()])
                draft.headers.append((name, other_character(value, index, rng)))
            # Two content types are no HTTP.
            codes = frozenset({"BadRequest"}) if (name, what) == ("content-type", "twice") else MISMATCH
            yield Wrong(name=f"{recipe.name}.{name}_{what}", draft=draft, codes=codes)


def _at_random(world: World, recipe: Recipe, rng: Random, number: int) -> Wrong:
    """One character of the Authorization header is another one."""
    draft = made(world, recipe, rng).draft
    text = draft.header(AUTH)
    draft.set(AUTH, other_character(text, rng.randrange(len(text)), rng))
    return Wrong(name=f"{recipe.name}.random_{number}", draft=draft, codes=ANY_OF_A_SIGNATURE)


def _adder(name: str, value: str) -> Change:
    return lambda draft, _: draft.headers.append((name, value))


def _path_character(draft: Draft, rng: Random) -> None:
    index = rng.choice([i for i, letter in enumerate(draft.path) if letter.isalnum()])
    draft.path = other_character(draft.path, index, rng)


def _query(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _other_second(amz_date: str) -> str:
    return amz_date[:-2] + str((int(amz_date[-2]) + 1) % 10) + "Z"


def _upper_signature(text: str) -> str:
    head, _, signature = text.rpartition("=")
    return f"{head}={signature.upper()}"
