"""An S3 endpoint that cases are played on: boto3 for what it can say, bytes on a socket for the rest. Every answer is
written down.

Calls never raise for an answer of the server's: an error is an answer, too.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
from botocore import UNSIGNED
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from gateway.s3.request import RawRequest
from gateway.s3.scope import Signer
from gateway.s3.signing import sign_request
from tests.conformance.transcript import Answer, Names, Rule, Told

REGION = "us-east-1"
ANSWER_SECONDS = 60
NO_ANSWER = 499  # the connection was closed instead
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Login:
    """A key, and who its owner is to the storage. `canonical_id` is the same by every way to that storage."""

    access_key: str
    secret_key: str
    canonical_id: str
    email: str = ""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One way to a storage: directly, or by the door. `letter`: what its buckets are told apart by."""

    url: str
    storage: str
    logins: Mapping[str, Login]
    letter: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer for cases that go on with what it says."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return self.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


class Clients:
    """boto3's clients of one site, made once; each writes down what it is answered."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._made: dict[tuple[Login | None, str], Any] = {}
        self.written: Callable[[Answer], None] = lambda _: None

    def find(self, login: Login | None, version: str = "s3v4") -> Any:
        """`login` None: without a signature."""
        if (login, version) not in self._made:
            self._made[login, version] = self._make(login, version)
        return self._made[login, version]

    def _make(self, login: Login | None, version: str) -> Any:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self._site.url,
            aws_access_key_id=login.access_key if login else "none",
            aws_secret_access_key=login.secret_key if login else "none",
            region_name=REGION,
            config=Config(
                s3={"addressing_style": "path"},
                signature_version=version if login else UNSIGNED,
                proxies={},
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                parameter_validation=False,
            ),
        )
        client._endpoint.http_session = self
        client.meta.events.register("before-sign.s3", _add_md5)
        client.meta.events.unregister("before-parameter-build.s3", _BUCKET_CHECK)
        return client

    def send(self, request: Any) -> AWSResponse:
        """What botocore calls with a request that is ready."""
        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = request.body.read() if hasattr(request.body, "read") else request.body or b""
        headers = [
            (name, value.decode("latin-1") if isinstance(value, bytes) else str(value))
            for name, value in request.headers.items()
        ]
        answer = exchange(self._site.host, request.method, target, headers, _as_bytes(body))
        self.written(answer)
        raw = _Stream(answer.body)
        return AWSResponse(request.url, answer.status, HeadersDict(dict(answer.headers)), raw)

    def close(self) -> None:
        """botocore's session has one."""


class S3:
    """What a case is given: the site as one of its users sees it. Attributes are boto3's methods."""

    def __init__(self, site: Site, clients: Clients, prefix: str, user: str = "main") -> None:
        self.site, self.user = site, user
        self._clients, self._prefix = clients, prefix
        self.names = Names(fixed={site.host: "{host}"})
        for name, login in site.logins.items():
            self.names.fixed[login.access_key] = f"{{key of {name}}}"
        self.told: list[Told] = []
        self.rules: list[Rule] = []
        self._rule: list[Rule] = [Rule.SAME]
        self._numbers = itertools.count(1)
        clients.written = self.write_down

    def write_down(self, answer: Answer) -> None:
        self.told.append(self.names.tell(answer))
        self.rules.append(self._rule[-1])

    @contextmanager
    def refused_by_both(self) -> Iterator[None]:
        """Within it both refuse, each in its own words."""
        yield from self._under(Rule.REFUSED)

    @contextmanager
    def refused_alike_or_more_strictly(self) -> Iterator[None]:
        """Within it the door may refuse what the storage takes, and refuse in other words."""
        yield from self._under(Rule.STRICTER)

    @contextmanager
    def answered_with_the_same_status(self) -> Iterator[None]:
        """Within it the words may differ."""
        yield from self._under(Rule.STATUS)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Within it answers are not compared."""
        yield from self._under(Rule.HIDDEN)

    @contextmanager
    def taken_at_least_by_the_door(self, is_so: bool = True) -> Iterator[None]:
        """Within it the door may do what the storage refuses."""
        yield from self._under(Rule.MORE if is_so else Rule.SAME)

    def note(self, text: str) -> None:
        """Something else that has to be the same."""
        self.told.append(Told(asked="note", status=0, lines=(text,)))
        self.rules.append(Rule.SAME)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            time.sleep(0.05)

    def first_line(self, method: str, target: str, headers: Pairs) -> None:
        """Write down what is answered to a request that waits for leave to send its body."""
        name, _, port = self.site.host.partition(":")
        with socket.create_connection((name, int(port)), ANSWER_SECONDS) as connection:
            lines = [f"{method} {target} HTTP/1.1", f"Host: {self.site.host}", *(f"{n}: {v}" for n, v in headers)]
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            with connection.makefile("rb") as answer:
                self.note(f"{method} {self.names.plain(target)}: {answer.readline().split()[1].decode()}")

    def _under(self, rule: Rule) -> Iterator[None]:
        self._rule.append(rule)
        yield
        self._rule.pop()

    def by(self, user: str) -> S3:
        """The same as another user; an empty name: as a stranger."""
        other = object.__new__(S3)
        other.__dict__ = {**self.__dict__, "user": user}
        return other

    @property
    def stranger(self) -> S3:
        return self.by("")

    @property
    def login(self) -> Login:
        """Who signs. The user `bad` has main's key with a wrong secret, `unknown` a key that nobody has."""
        main = self.site.logins["main"]
        if self.user == "bad":
            return replace(main, secret_key="x" * 40)
        if self.user == "unknown":
            return replace(main, access_key="NOBODYATALLNOBODY")
        return self.site.logins[self.user]

    def new_name(self) -> str:
        """A name of a bucket that is not there, as long as its counterpart at the other site."""
        name = f"{self._prefix}-{self.site.letter}-{next(self._numbers)}"
        self.names.add_bucket(name)
        return name

    def make_bucket(self, **more: Any) -> Bucket:
        name = self.new_name()
        self.create_bucket(Bucket=name, **more)
        return Bucket(self, name)

    def bucket(self, name: str) -> Bucket:
        return Bucket(self, name)

    def client(self, version: str = "s3v4") -> Any:
        return self._clients.find(self.login if self.user else None, version)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client(), name)

        def call(**parameters: Any) -> Any:
            try:
                answered = method(**parameters)
            except ClientError as error:
                return error.response
            if "Body" in answered and hasattr(answered["Body"], "read"):
                answered["Body"] = answered["Body"].read()
            return answered

        return call

    def send(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Pairs = (),
        body: bytes = b"",
        payload: str | None = None,
        late: Pairs = (),
        without: Sequence[str] = (),
        shift: timedelta = timedelta(),
        is_signed: bool = True,
        length: str | None = "",
    ) -> Reply:
        """One request by hand, signed V4. `path`: not encoded; a path that begins with `=` is taken as it stands.
        `late`: headers set after signing; `without`: headers taken away after it. `payload`: of
        x-amz-content-sha256, the body's hash if left out. `length`: Content-Length, None for none."""
        target = path[1:] if path.startswith("=") else quote(path, safe="/-_.~")
        sent = list(headers)
        if is_signed:
            raw = RawRequest(
                method=method,
                path=target.encode(),
                query=query.encode(),
                headers=tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers),
                host=self.site.host,
            )
            signer = Signer(access_key=self.login.access_key, secret_key=self.login.secret_key, region=REGION)
            digest = hashlib.sha256(body).hexdigest() if payload is None else payload
            signed = sign_request(raw, signer, payload=digest, now=datetime.now(UTC) + shift)
            sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in signed]
        dropped = {name.lower() for name in without} | {name.lower() for name, _ in late}
        sent = [*(pair for pair in sent if pair[0].lower() not in dropped), *late]
        return self.exchange(method, target + (f"?{query}" if query else ""), sent, body, length=length)

    def exchange(
        self, method: str, target: str, headers: Pairs = (), body: bytes = b"", *, length: str | None = ""
    ) -> Reply:
        """The bytes of one request, as they stand; a Host is added where there is none."""
        answer = exchange(self.site.host, method, target, headers, body, length=length)
        self.write_down(answer)
        return Reply(
            status=answer.status, headers={name.lower(): value for name, value in answer.headers}, body=answer.body
        )

    def presign(
        self, operation: str, *, version: str = "s3v4", expires: int = 600, method: str | None = None, **parameters: Any
    ) -> str:
        """Path and query of a presigned URL."""
        made = self.client(version).generate_presigned_url(
            operation, Params=parameters, ExpiresIn=expires, HttpMethod=method
        )
        return str(made).removeprefix(self.site.url)

    def presign_v4(self, method: str, path: str, seconds: int) -> str:
        """Path and query of a URL with any life, which boto3 does not make."""
        request = AWSRequest(method=method, url=self.site.url + path)
        signer = Credentials(self.login.access_key, self.login.secret_key)
        S3SigV4QueryAuth(signer, "s3", REGION, expires=seconds).add_auth(request)
        return str(request.url).removeprefix(self.site.url)


class Bucket:
    """A bucket of a case's: its name goes into every call."""

    def __init__(self, s3: S3, name: str) -> None:
        self.s3, self.name = s3, name

    def by(self, user: str) -> Bucket:
        return Bucket(self.s3.by(user), self.name)

    @property
    def stranger(self) -> Bucket:
        return self.by("")

    def put(self, *keys: str, body: bytes | None = None) -> None:
        """Objects of these keys, with the key as their content."""
        for key in keys:
            self.put_object(Key=key, Body=key.encode() if body is None else body)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.s3, name)
        return lambda **parameters: method(Bucket=self.name, **parameters)

    def send(self, method: str, key: str | None = None, **more: Any) -> Reply:
        return self.s3.send(method, f"/{self.name}" + (f"/{key}" if key is not None else ""), **more)

    def presign(self, operation: str, **more: Any) -> str:
        return self.s3.presign(operation, Bucket=self.name, **more)


def exchange(
    host: str, method: str, target: str, headers: Pairs, body: bytes = b"", *, length: str | None = ""
) -> Answer:
    """One request on a connection of its own."""
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if (
        length is not None
        and not names & {"content-length", "transfer-encoding"}
        and (length or body or method in ("PUT", "POST"))
    ):
        lines.append(f"Content-Length: {length or len(body)}")
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), ANSWER_SECONDS) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        try:
            if body:
                connection.sendall(body)
        except OSError:
            pass  # answered before it was all sent
        with http.client.HTTPResponse(connection, method=method) as response:
            try:
                response.begin()
                content = response.read()
            except http.client.IncompleteRead as cut:
                content = cut.partial + b"{cut short}"
            except (http.client.HTTPException, OSError):
                return Answer(asked=f"{method} {target}", status=NO_ANSWER, headers=(), body=b"", is_head=False)
            return Answer(
                asked=f"{method} {target}",
                status=response.status,
                headers=response.getheaders(),
                body=content,
                is_head=method == "HEAD",
            )


class _Stream(io.BytesIO):
    """A body as botocore wants it."""

    def stream(self, *_: Any, **__: Any) -> Any:
        yield self.getvalue()


_BUCKET_CHECK = __import__("botocore.handlers", fromlist=["validate_bucket_name"]).validate_bucket_name


def _add_md5(request: Any, **_: Any) -> None:
    """Older storages insist on it where botocore sends another checksum."""
    body = request.data
    if isinstance(body, (bytes, bytearray)) and body[:1] == b"<" and "Content-MD5" not in request.headers:
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(body).digest()).decode()


def _as_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)
