"""The signed policy of a browser's POST form, V4 or V2.

The signature is verified here; the conditions are evaluated by the storage, over a policy that is the client's but for
the signer. So no second reading of S3's condition language can differ from the storage's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.s3.claims import ALGORITHM, read_credential
from gateway.s3.errors import S3Error
from gateway.s3.scope import Scope, Signer, format_date, is_same, parse_date, sign, signing_key
from gateway.s3.sigv4 import Rules, check_scope, mismatch

MAX_POLICY_BYTES = 20 << 10  # S3's bound on all fields before the file

Field = tuple[str, str]

# Fields that belong to the signature, not to the object.
_V4_FIELDS = frozenset({"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token"})
_V2_FIELDS = frozenset({"awsaccesskeyid", "signature"})
_SIGNER_FIELDS = _V4_FIELDS | _V2_FIELDS
_FREE_FIELDS = frozenset({"policy", "file", "bucket"})
_NOT_A_SECRET = "0" * 40
_FILENAME = "${filename}"
_EXPIRATION = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """`operator`: eq, starts-with, or content-length-range (then with the bounds, in bytes). `field`: lower-case,
    without its $."""

    operator: str
    field: str
    value: str = ""
    minimum: int = 0
    maximum: int = 0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`document`: the JSON as the client signed it."""

    expires_at: datetime
    conditions: tuple[Condition, ...]
    document: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a form says of its signature; nothing of it is proven. `scope` None: signed by V2."""

    access_key: str
    signature: str
    encoded: str
    scope: Scope | None = None
    amz_date: str = ""


def read_claim(fields: Iterable[Field]) -> Claim | None:
    """The signature of a form's fields; None where it has none. Raises S3Error InvalidArgument, InvalidPolicyDocument,
    NotImplemented."""
    stated = _by_name(fields)
    if stated.keys().isdisjoint(_SIGNER_FIELDS | {"policy"}):
        return None
    encoded = _need(stated, "policy")
    if len(encoded) > MAX_POLICY_BYTES:
        raise S3Error("InvalidPolicyDocument", "The policy is too long.")
    is_v4, is_v2 = "x-amz-signature" in stated, "signature" in stated
    if is_v4 and is_v2:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed")
    if not is_v4:
        return Claim(access_key=_need(stated, "awsaccesskeyid"), signature=_need(stated, "signature"), encoded=encoded)
    if _need(stated, "x-amz-algorithm") != ALGORITHM:
        raise S3Error("NotImplemented", "Only AWS4-HMAC-SHA256 is supported.")
    access_key, scope = read_credential(_need(stated, "x-amz-credential"), "InvalidArgument")
    amz_date = _need(stated, "x-amz-date")
    if parse_date(amz_date) is None:
        raise S3Error("InvalidArgument", "x-amz-date must be like 20130524T000000Z.")
    return Claim(
        access_key=access_key, signature=stated["x-amz-signature"], encoded=encoded, scope=scope, amz_date=amz_date
    )


def verify(claim: Claim, fields: Iterable[Field], *, secret_key: str | None, rules: Rules, now: datetime) -> Policy:
    """The policy, proven and not expired. `secret_key` None: the key is unknown. Raises S3Error SignatureDoesNotMatch,
    InvalidAccessKeyId, AccessDenied, InvalidPolicyDocument, InvalidArgument."""
    secret = _NOT_A_SECRET if secret_key is None else secret_key
    text = claim.encoded.encode("utf-8")
    if claim.scope is not None:
        check_scope(claim.scope, claim.amz_date, rules.region, "InvalidArgument")
    ours = sign_policy(secret, text, claim.scope)
    if secret_key is None:
        raise S3Error("InvalidAccessKeyId", details={"AWSAccessKeyId": claim.access_key})
    if not is_same(ours, claim.signature):
        raise mismatch(claim.access_key, claim.signature, text)
    policy = parse_policy(claim.encoded)
    if now > policy.expires_at:
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    stated = _by_name(fields)
    _check_signer_conditions(policy.conditions, stated)
    _check_named(policy.conditions, stated)
    return policy


def rewrite_policy(fields: Sequence[Field], policy: Policy, signer: Signer, *, now: datetime) -> list[Field]:
    """The form's fields with a policy signed anew for the storage, V4, every condition but the signer's kept. Fields
    keep their order; the signature's come last, still before the file."""
    amz_date = format_date(now)
    scope = Scope(date=amz_date[:8], region=signer.region)
    ours = {
        "x-amz-algorithm": ALGORITHM,
        "x-amz-credential": f"{signer.access_key}/{scope}",
        "x-amz-date": amz_date,
    }
    stated: list[Any] = policy.document["conditions"]
    kept = [
        item for item, condition in zip(stated, policy.conditions, strict=True) if condition.field not in _SIGNER_FIELDS
    ]
    document = policy.document | {"conditions": [*kept, *({name: value} for name, value in ours.items())]}
    encoded = base64.b64encode(json.dumps(document).encode("utf-8")).decode("ascii")
    signature = sign_policy(signer.secret_key, encoded.encode("ascii"), scope)
    others = [field for field in fields if field[0].lower() not in _SIGNER_FIELDS | {"policy"}]
    return [*others, *ours.items(), ("policy", encoded), ("x-amz-signature", signature)]


def resolve_key(fields: Iterable[Field], filename: str) -> str:
    """The key under which the form stores its file. Raises S3Error InvalidArgument."""
    return _need(_by_name(fields), "key").replace(_FILENAME, filename.replace("\\", "/").rpartition("/")[2])


def replace_key(fields: Iterable[Field], key: str) -> list[Field]:
    """The fields with the key as it is. Storages differ in what they take ${filename} for, so none is left to them.
    Raises S3Error InvalidArgument."""
    if _FILENAME in key:
        raise S3Error("InvalidArgument", f"A file may not be named {_FILENAME}.")
    return [(name, key if name.lower() == "key" else value) for name, value in fields]


def parse_policy(encoded: str) -> Policy:
    """The policy of a form's field. Raises S3Error InvalidPolicyDocument."""
    try:
        document = json.loads(base64.b64decode("".join(encoded.split()), validate=True), object_pairs_hook=_once)
        return Policy(
            expires_at=_read_time(document["expiration"]),
            conditions=tuple(_read_condition(item) for item in document["conditions"]),
            document=document,
        )
    except (binascii.Error, ValueError, AttributeError, KeyError, OverflowError, TypeError, RecursionError):
        raise S3Error("InvalidPolicyDocument", "Invalid Policy: Invalid JSON.") from None


def sign_policy(secret: str, text: bytes, scope: Scope | None) -> str:
    """The signature of an encoded policy: V4, or V2 without a scope."""
    if scope is None:
        return base64.b64encode(hmac.digest(secret.encode("utf-8"), text, "sha1")).decode("ascii")
    return sign(signing_key(secret, scope.date, scope.region), text)


def _by_name(fields: Iterable[Field]) -> dict[str, str]:
    stated: dict[str, str] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in stated:  # parsers differ in which of two they take
            raise S3Error("InvalidArgument", f"The form states {lower} twice.")
        stated[lower] = value
    return stated


def _need(stated: dict[str, str], name: str) -> str:
    if not stated.get(name):
        raise S3Error("InvalidArgument", f"Bucket POST must contain a field named '{name}'.")
    return stated[name]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("repeated name")
    return dict(pairs)


def _read_time(text: str) -> datetime:
    if not _EXPIRATION.fullmatch(text):  # Python reads more than S3
        raise ValueError(text)
    return datetime.fromisoformat(text)


def _read_condition(item: Any) -> Condition:
    if isinstance(item, dict):
        ((name, value),) = item.items()
        return Condition(operator="eq", field=name.lower(), value=_as_text(value))
    operator, first, second = item
    kind = operator.lower()
    if kind == "content-length-range":
        return Condition(operator=kind, field="content-length-range", minimum=int(first), maximum=int(second))
    if kind not in ("eq", "starts-with") or not first.startswith("$"):
        raise ValueError(kind)
    return Condition(operator=kind, field=first[1:].lower(), value=_as_text(second))


def _as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a condition's value is a string")
    return value


def _check_named(conditions: Iterable[Condition], stated: dict[str, str]) -> None:
    """A field that no condition names is refused, as S3 does: not every storage looks at fields such as acl."""
    free = {condition.field for condition in conditions} | _SIGNER_FIELDS | _FREE_FIELDS
    extra = sorted(name for name in stated if name not in free and not name.startswith("x-ignore-"))
    if extra:
        raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {', '.join(extra)}")


def _check_signer_conditions(conditions: Iterable[Condition], stated: dict[str, str]) -> None:
    """The conditions that the rewriting replaces are evaluated here, because the storage never sees them."""
    for condition in conditions:
        if condition.field not in _SIGNER_FIELDS:
            continue
        value = stated.get(condition.field, "")
        if not (value.startswith(condition.value) if condition.operator == "starts-with" else value == condition.value):
            raise S3Error("AccessDenied", f"Invalid according to Policy: Policy Condition failed: {condition.field}")
