"""Requests that the door could read in one way and a storage in another: other spellings of names, headers, paths and
fields, under which something else would be done than was signed, or than the key may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from random import Random
from typing import Any

from gateway.s3.sigv2 import SUBRESOURCES
from tests.integration.wrong_requests.posts import BOUNDARY, FORM, Form, draft_of
from tests.integration.wrong_requests.recipes import COPY, DELETE, DELETE_MANY, PUTS, Recipe, World, seal
from tests.integration.wrong_requests.signing import Signature, sign_form, sign_query_v2
from tests.integration.wrong_requests.wire import Draft
from tests.integration.wrong_requests.wrongs import DENIED, MISMATCH, MISSING, REQUEST, Wrong

PUT, CREATE = PUTS[0], Recipe(name="create", make=lambda w, k, _: _upload(w, k))
URI = frozenset({"InvalidURI"})
OUTSIDE = "outside/smuggled.jpg"
# What a storage's own programs call their part of its address.
NOT_BUCKETS = ("minio/admin/v3/add-user", "admin/user", "rustfs/admin/v3/info", "minio", "admin")


def wrong_aliases(world: World, rng: Random) -> Iterator[Wrong]:
    yield from _encoded_names(world, rng)
    yield from _buckets(world, rng)
    yield from _headers(world, rng)
    yield from _grants(world, rng)
    yield from _forms(world)


def _encoded_names(world: World, rng: Random) -> Iterator[Wrong]:
    """V2 signs sub-resources only: none may be added to an address by spelling its name otherwise."""
    for name in sorted(item.decode() for item in SUBRESOURCES):
        encoded = f"%{ord(name[0]):02x}{name[1:]}"
        for method in ("GET", "PUT", "DELETE"):
            draft = Draft(method=method, path=world.path(world.kept[0]), body=b"x" if method == "PUT" else b"")
            sign_query_v2(draft, world.host, world.who)
            draft.query.append((encoded, "1"))
            yield Wrong(name=f"v2.{method}.{encoded}", draft=draft, codes=MISMATCH)
    for name in ("Response-Content-Type", "response-Content-disposition", "%52esponse-content-type"):
        draft = Draft(method="GET", path=world.path(world.kept[0]))
        sign_query_v2(draft, world.host, world.who)
        draft.query.append((name, "text%2Fhtml"))
        yield Wrong(name=f"v2.{name}", draft=draft, codes=DENIED)


def _buckets(world: World, rng: Random) -> Iterator[Wrong]:
    for name in (f":{world.derived}", f"%3A{world.derived}", f"other:{world.derived}"):
        for recipe in (PUT, COPY, CREATE, DELETE, DELETE_MANY):
            yield _wrong(world, f"{recipe.name}.{name}", recipe, _moved(world, recipe, rng, name))
        yield _wrong(world, f"acl.{name}", PUT, Draft(method="PUT", path=f"/{name}/x.jpg", query=[("acl", None)]))
        form = _form(world, world.who, "x.jpg", bucket=f":{world.derived}")
        draft = draft_of(world, form)
        draft.path = f"/{name}"
        yield Wrong(name=f"form.{name}", draft=draft, codes=DENIED)
    for name in NOT_BUCKETS:
        for method in ("GET", "PUT", "POST", "DELETE"):
            body = b"x" if method == "PUT" else b""
            draft = Draft(method=method, path=f"/{name}", query=[], body=body)
            yield _wrong(world, f"{method}.{name}", PUT, draft)
    for name in ("..", "."):
        draft = Draft(method="PUT", path=f"/{name}/{world.derived}/x.jpg", body=world.photo)
        yield _wrong(world, f"bucket_{name}", PUT, draft, codes=URI)


def _headers(world: World, rng: Random) -> Iterator[Wrong]:
    """Some storages take _ for - in names of headers: then these would be a copy source and an ACL."""
    source = f"/{world.bucket}/{world.source}"
    for name, value in (
        ("x_amz_acl", "public-read"),
        ("x_amz_copy_source", source),
        ("X-Amz_Copy-Source", source),
        ("x-amz-copy_source", source),
        ("x-amz_meta-a", "one"),
    ):
        draft = PUT.make(world, world.pick_key(rng), world.photo)
        draft.headers.append((name, value))
        yield _wrong(world, f"header.{name}", PUT, draft, codes=REQUEST)
    for coding in ("gzip, chunked", "gzip,chunked", "deflate"):
        draft = seal(world, PUT, PUT.make(world, world.pick_key(rng), world.photo), world.who).draft
        draft.headers.append(("Transfer-Encoding", coding))
        draft.body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(draft.body), draft.body)
        yield Wrong(name=f"coding.{coding}", draft=draft, codes=MISSING | frozenset({"BadRequest"}))


def _grants(world: World, rng: Random) -> Iterator[Wrong]:
    """Opening an object to others needs the scope admin, however it is asked for."""
    for name, value in (
        ("x-amz-acl", "public-read"),
        ("x-amz-acl", "authenticated-read"),
        ("x-amz-grant-read", 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'),
        ("X-Amz-Grant-Full-Control", "id=1"),
    ):
        for recipe in (PUT, CREATE):
            draft = recipe.make(world, world.pick_key(rng), world.photo)
            draft.headers.append((name, value))
            yield _wrong(world, f"{recipe.name}.{name}.{value}", recipe, draft, by=world.writer)
    draft = PUT.make(world, world.pick_key(rng), world.photo)
    draft.headers = []
    draft.query.append(("x-amz-acl", "public-read"))
    yield _wrong(world, "acl_in_query", PUT, draft, by=world.writer)
    form = _form(world, world.writer, "new/a.jpg", ("acl", "public-read"))
    yield Wrong(name="form.acl", draft=draft_of(world, form), codes=DENIED)


def _forms(world: World) -> Iterator[Wrong]:
    """Somebody who may write below new/mine/ signs a policy that allows all, and names the key twice."""
    who = world.narrow
    changes: dict[str, tuple[Callable[[Form], Any], frozenset[str]]] = {
        "name_in_a_name": (lambda f: f.fields.append(("x-ignore-a; name=key", OUTSIDE)), FORM),
        "name_in_quotes": (lambda f: f.fields.append(('x-ignore-a\\"; name=\\"key', OUTSIDE)), FORM),
        "key_climbs": (lambda f: f.set("key", "new/mine/../../outside/a.jpg"), DENIED),
    }
    for name, (change, codes) in changes.items():
        form = _form(world, who, "new/mine/a.jpg")
        change(form)
        yield Wrong(name=f"form.{name}", draft=draft_of(world, form), codes=codes)
    for content_type in (
        f"multipart/form-data; boundary={BOUNDARY}; boundary=other",
        f"multipart/form-data; boundary=other; boundary={BOUNDARY}",
        f"multipart/form-data; xboundary={BOUNDARY}",
        f'multipart/form-data; charset="; boundary={BOUNDARY}"',
        f'multipart/form-data; boundary="{BOUNDARY}',
    ):
        draft = draft_of(world, _form(world, who, "new/mine/a.jpg"))
        draft.set("Content-Type", content_type)
        yield Wrong(name=f"form.{content_type}", draft=draft, codes=FORM)
    draft = draft_of(world, _form(world, who, "new/mine/a.jpg"))
    draft.body = draft.body.replace(b"Content-Type: image/jpeg\r\n", b"Content-Type: a\nContent-Type: b\r\n")
    yield Wrong(name="form.line_in_a_line", draft=draft, codes=FORM)


def _form(world: World, by: Signature, key: str, *more: tuple[str, str], bucket: str = "") -> Form:
    """With a policy that allows whatever the fields are."""
    names = ["key", "KEY", *(name for name, _ in more)]
    conditions: list[Any] = [{"bucket": bucket or world.bucket}, *(["starts-with", f"${name}", ""] for name in names)]
    signed = sign_form(conditions, by, lasts=timedelta(minutes=10), version=4)
    return Form(fields=[("key", key), *more, *signed], data=world.photo)


def _moved(world: World, recipe: Recipe, rng: Random, bucket: str) -> Draft:
    draft = recipe.make(world, world.pick_key(rng), world.photo)
    draft.path = draft.path.replace(f"/{world.bucket}", f"/{bucket}", 1)
    return draft


def _upload(world: World, key: str) -> Draft:
    return Draft(method="POST", path=world.path(key), query=[("uploads", None)])


def _wrong(
    world: World,
    name: str,
    recipe: Recipe,
    draft: Draft,
    *,
    by: Signature | None = None,
    codes: frozenset[str] = DENIED,
) -> Wrong:
    return Wrong(name=f"alias.{name}", draft=seal(world, recipe, draft, by or world.who).draft, codes=codes)
