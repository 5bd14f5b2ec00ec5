"""Wrong POST forms: policies that were changed, have expired or are somebody else's, fields that break their
conditions, and bodies that are no form.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any

from tests.integration.wrong_requests.recipes import World
from tests.integration.wrong_requests.signing import Signature, sign_form
from tests.integration.wrong_requests.wire import Draft
from tests.integration.wrong_requests.wrongs import (
    ANY_OF_A_SIGNATURE,
    ARGUMENT,
    DENIED,
    INCOMPLETE,
    MISMATCH,
    MISSING,
    REQUEST,
    SILENT,
    UNKNOWN,
    Wrong,
    other_character,
)

BOUNDARY = "3c1b5d7e"
POLICY = frozenset({"InvalidPolicyDocument"})
FORM = frozenset({"MalformedPOSTRequest"})


@dataclass(kw_only=True)
class Form:
    """`key`: as the field says. `fields` come before the file, in their order."""

    fields: list[tuple[str, str]]
    data: bytes
    ending: bytes = f"\r\n--{BOUNDARY}--\r\n".encode()

    def set(self, name: str, value: str) -> None:
        assert any(key == name for key, _ in self.fields), name
        self.fields = [(key, value if key == name else old) for key, old in self.fields]

    def get(self, name: str) -> str:
        return next(value for key, value in self.fields if key == name)

    def drop(self, name: str) -> None:
        self.fields = [item for item in self.fields if item[0] != name]

    def render(self) -> bytes:
        lines = "".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in self.fields
        )
        head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg'
        return f"{lines}--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + self.data + self.ending


ChangeForm = Callable[[Form, Random], None]


def make_form(
    world: World, key: str, data: bytes, by: Signature, *, version: int, lasts: timedelta = timedelta(minutes=10)
) -> Form:
    """A right one: its policy allows keys below new/ and kept/, up to 10 MB, as image/jpeg."""
    conditions: list[Any] = [
        {"bucket": world.bucket},
        ["starts-with", "$key", key.partition("/")[0] + "/"],
        ["eq", "$Content-Type", "image/jpeg"],
        ["content-length-range", 10, 10_000_000],
        {"x-amz-meta-a": "one"},
    ]
    signed = sign_form(conditions, by, lasts=lasts, version=version)
    fields = [("key", key), ("Content-Type", "image/jpeg"), ("x-amz-meta-a", "one"), *signed]
    return Form(fields=fields, data=data)


def draft_of(world: World, form: Form) -> Draft:
    headers = [("Host", world.host), ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")]
    return Draft(method="POST", path=f"/{world.bucket}", headers=headers, body=form.render())


def wrong_posts(world: World, rng: Random) -> Iterator[Wrong]:
    for version in (4, 2):
        changes = _of_both(world) | (_of_v4(world) if version == 4 else _of_v2(world))
        for name, (change, codes) in changes.items():
            form = make_form(world, world.pick_key(rng), world.photo, world.who, version=version)
            change(form, rng)
            yield Wrong(name=f"form_v{version}.{name}", draft=draft_of(world, form), codes=codes)
        yield from _signed_wrongly(world, rng, version)
        yield from _no_forms(world, rng, version)


def _signed_wrongly(world: World, rng: Random, version: int) -> Iterator[Wrong]:
    who, minutes = world.who, timedelta(minutes=10)
    signers: dict[str, tuple[Signature, timedelta, frozenset[str]]] = {
        "secret_wrong": (replace(who, secret_key="x" * 40), minutes, MISMATCH),
        "secret_of_other": (replace(who, secret_key=world.other.secret_key), minutes, MISMATCH),
        "by_unknown": (replace(who, access_key="SLNOBODYNOBODYNOBODY"), minutes, UNKNOWN),
        "by_revoked": (world.revoked, minutes, UNKNOWN),
        "by_expired": (world.expired, minutes, UNKNOWN),
        "by_reader": (world.reader, minutes, DENIED),
        "by_somebody_elsewhere": (world.elsewhere, minutes, DENIED),
        "over": (who, timedelta(seconds=-2), DENIED),
        "long_over": (who, timedelta(days=-400), DENIED),
    }
    if version == 4:
        signers["service"] = (replace(who, service="iam"), minutes, ARGUMENT)
        signers["day"] = (replace(who, date="20200101"), minutes, ARGUMENT)
    for name, (signer, lasts, codes) in signers.items():
        form = make_form(world, world.pick_key(rng), world.photo, signer, version=version, lasts=lasts)
        yield Wrong(name=f"form_v{version}.{name}", draft=draft_of(world, form), codes=codes)


def _of_both(world: World) -> dict[str, tuple[ChangeForm, frozenset[str]]]:
    def policy(change: Callable[[dict[str, Any]], Any]) -> ChangeForm:
        def apply(form: Form, _: Random) -> None:
            document = json.loads(base64.b64decode(form.get("policy")))
            change(document)
            form.set("policy", base64.b64encode(json.dumps(document).encode()).decode())

        return apply

    def random_policy(form: Form, rng: Random) -> None:
        text = form.get("policy")
        form.set("policy", other_character(text, rng.randrange(len(text) - 2), rng))

    return {
        "policy_character": (random_policy, MISMATCH),
        "policy_longer": (policy(lambda d: d.update(expiration="2999-01-01T00:00:00Z")), MISMATCH),
        "policy_open": (policy(lambda d: d.update(conditions=[])), MISMATCH),
        "policy_bucket": (policy(lambda d: d["conditions"].__setitem__(0, {"bucket": "x"})), MISMATCH),
        "policy_empty": (lambda f, _: f.set("policy", ""), ARGUMENT),
        "policy_word": (lambda f, _: f.set("policy", "policy"), MISMATCH),
        "policy_gone": (lambda f, _: f.drop("policy"), ARGUMENT),
        "policy_twice": (lambda f, _: f.fields.append(("policy", f.get("policy"))), ARGUMENT),
        "policy_long": (lambda f, _: f.set("policy", f.get("policy") + "A" * 30_000), POLICY | FORM),
        "key_elsewhere": (lambda f, _: f.set("key", "elsewhere/a.jpg"), DENIED),
        "key_up": (lambda f, _: f.set("key", "../a.jpg"), DENIED | REQUEST),
        "key_twice": (lambda f, _: f.fields.append(("key", "elsewhere/a.jpg")), ARGUMENT),
        "key_gone": (lambda f, _: f.drop("key"), ARGUMENT),
        "type_other": (lambda f, _: f.set("Content-Type", "text/html"), DENIED),
        "type_gone": (lambda f, _: f.drop("Content-Type"), DENIED),
        "meta_other": (lambda f, _: f.set("x-amz-meta-a", "two"), DENIED),
        "meta_gone": (lambda f, _: f.drop("x-amz-meta-a"), DENIED),
        "meta_added": (lambda f, _: f.fields.append(("x-amz-meta-b", "two")), DENIED),
        "acl_added": (lambda f, _: f.fields.append(("acl", "public-read")), DENIED),
        "redirect_added": (
            lambda f, _: f.fields.append(("success_action_redirect", "http://127.0.0.1/")),
            DENIED,
        ),
        "too_small": (lambda f, _: setattr(f, "data", f.data[:9]), frozenset({"EntityTooSmall"})),
        "too_large": (lambda f, _: setattr(f, "data", f.data + bytes(10_000_000)), frozenset({"EntityTooLarge"})),
        "many_fields": (lambda f, _: f.fields.extend((f"x-ignore-{n}", "x" * 900) for n in range(40)), FORM),
    }


def _of_v4(world: World) -> dict[str, tuple[ChangeForm, frozenset[str]]]:
    def other_key(form: Form, _: Random) -> None:
        scope = form.get("x-amz-credential").partition("/")[2]
        form.set("x-amz-credential", f"{world.other.access_key}/{scope}")

    def random_field(name: str) -> ChangeForm:
        def change(form: Form, rng: Random) -> None:
            text = form.get(name)
            form.set(name, other_character(text, rng.randrange(len(text)), rng))

        return change

    def signature_v2(form: Form, _: Random) -> None:
        form.fields += [("AWSAccessKeyId", world.who.access_key), ("signature", "c2lnbmF0dXJl")]

    return {
        "signature": (random_field("x-amz-signature"), MISMATCH),
        "signature_gone": (lambda f, _: f.drop("x-amz-signature"), ARGUMENT),
        "credential": (random_field("x-amz-credential"), ANY_OF_A_SIGNATURE),
        "credential_gone": (lambda f, _: f.drop("x-amz-credential"), ARGUMENT),
        "other_key": (other_key, MISMATCH),
        "date": (lambda f, _: f.set("x-amz-date", "20200101T000000Z"), ARGUMENT),
        "date_second": (lambda f, _: f.set("x-amz-date", f.get("x-amz-date")[:8] + "T000000Z"), DENIED),
        "date_word": (lambda f, _: f.set("x-amz-date", "today"), ARGUMENT),
        "date_gone": (lambda f, _: f.drop("x-amz-date"), ARGUMENT),
        "algorithm": (lambda f, _: f.set("x-amz-algorithm", "AWS4-HMAC-SHA1"), MISSING),
        "algorithm_gone": (lambda f, _: f.drop("x-amz-algorithm"), ARGUMENT),
        "and_v2": (signature_v2, ARGUMENT),
    }


def _of_v2(world: World) -> dict[str, tuple[ChangeForm, frozenset[str]]]:
    def spoil(form: Form, rng: Random) -> None:
        form.set("signature", other_character(form.get("signature"), 4, rng))

    return {
        "signature": (spoil, MISMATCH),
        "signature_gone": (lambda f, _: f.drop("signature"), ARGUMENT),
        "key_gone_of_signer": (lambda f, _: f.drop("AWSAccessKeyId"), ARGUMENT),
        "other_key": (lambda f, _: f.set("AWSAccessKeyId", world.other.access_key), MISMATCH),
    }


def _no_forms(world: World, rng: Random, version: int) -> Iterator[Wrong]:
    """The form is right; what carries it is not."""

    def fresh() -> Draft:
        return draft_of(world, make_form(world, world.pick_key(rng), world.pick_data(rng), world.who, version=version))

    def wrong(name: str, draft: Draft, codes: frozenset[str]) -> Wrong:
        return Wrong(name=f"form_v{version}.{name}", draft=draft, codes=codes)

    draft = fresh()
    draft.set("Content-Type", "multipart/form-data")
    yield wrong("no_boundary", draft, FORM)
    draft = fresh()
    draft.set("Content-Type", "multipart/form-data; boundary=other")
    yield wrong("other_boundary", draft, FORM)
    draft = fresh()
    draft.path = f"/{world.other_bucket}"
    yield wrong("other_bucket", draft, DENIED)
    draft = fresh()
    draft.body = draft.body[: draft.body.index(b'name="file"') + rng.randrange(20)]
    yield wrong("ends_before_the_file", draft, FORM)
    draft = fresh()
    draft.body = draft.body[: -rng.randrange(60, 900)]
    yield wrong("ends_in_the_file", draft, FORM | INCOMPLETE)
    draft = fresh()
    draft.sent = len(draft.body) - rng.randrange(60, 900)
    yield wrong("falls_silent", draft, SILENT)
    draft = fresh()
    draft.sent, draft.hangs_up = len(draft.body) - rng.randrange(60, 900), True
    yield wrong("hangs_up", draft, frozenset({""}))
    draft = fresh()
    draft.body = draft.body.replace(b'name="file"', b'name="photo"')
    yield wrong("no_file", draft, ARGUMENT | FORM)
    draft = fresh()
    draft.headers.append(("Transfer-Encoding", "chunked"))
    draft.body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(draft.body), draft.body)
    yield wrong("no_length", draft, frozenset({"MissingContentLength"}))
