"""The way of a request at the S3 door: who is it, what is asked, may they; the storage; the hooks; the answer.

Everything that is stored passes `_put`, `_post_form` or `_settle_late`, and is recorded before the client hears of it.
What S3's protocol means is decided in gateway.s3.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import structlog
from aiohttp import web

from gateway.door import access, answers, bodies, forms, trailers
from gateway.door.backend import Answer, Backend, BackendUnavailable, Outgoing
from gateway.door.keyring import Keyring, Principal
from gateway.door.listings import filter_buckets, find_failed
from gateway.door.metrics import DoorMetrics
from gateway.door.rates import Rates
from gateway.door.recording import HEAD_BYTES, Found, Recorder, path_of, read_etag, read_version
from gateway.door.visit import Visit
from gateway.reach import Reach
from gateway.s3 import authentication, policy
from gateway.s3.chunked import Decoder
from gateway.s3.errors import S3Error
from gateway.s3.identity import PayloadMode, Verified
from gateway.s3.operations import APPEND_OBJECT, PREFLIGHT, Asked, Body, Effect, classify
from gateway.s3.request import RawRequest, read_request
from gateway.s3.scope import Signer
from gateway.s3.sigv4 import Rules
from gateway.s3.targets import Target, locate
from gateway.s3.xml import MAX_XML_BYTES, find_error, parse_deletions
from gateway.settings import GatewaySettings
from processors.settings import JobSettings
from storage import failpoints, keys
from storage.database import DatabaseUnavailable

log = structlog.get_logger(__name__)

_ANSWER_BYTES = 16 << 20  # of answers that are read whole
_FORMS_SHARE = 10  # one of so many requests in flight may be a form whose sender is not known yet
_OWN_KEY = b"x-amz-server-side-encryption-customer-algorithm"


class Door:
    """All requests of one process."""

    def __init__(
        self,
        settings: GatewaySettings,
        jobs: JobSettings,
        *,
        backend: Backend,
        keyring: Keyring,
        recorder: Recorder,
        rates: Rates,
        derived_bucket: str,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._backend = backend
        self._keyring = keyring
        self._recorder = recorder
        self._rates = rates
        self._derived_bucket = derived_bucket
        self._rules = Rules(public_hosts=settings.s3_public_host_names)
        self._public = (
            Reach(places=settings.s3_public_place_names, derived_bucket=derived_bucket)
            if settings.s3_public_place_names
            else None
        )
        self.in_flight = 0
        self._unproven_forms = 0
        self.metrics = DoorMetrics()
        self.metrics.in_flight.set_function(lambda: self.in_flight)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        request_id = secrets.token_hex(8)
        started_at = time.perf_counter()
        raw: RawRequest | None = None
        visit: Visit | None = None
        failure: S3Error | None = None
        self.in_flight += 1
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if self.in_flight > self._settings.s3_max_requests:
                    raise S3Error("SlowDown")  # noqa: TRY301 - answered below like all others
                raw = read_raw(request)
                visit = await self._admit(request, raw, request_id)
                response = await self._serve(visit)
            except Exception as error:  # noqa: BLE001 - the one place where anything may end
                failure = _translate(error)
                response = answers.make_error(failure, raw, request_id)
            finally:
                self.in_flight -= 1
                if visit is not None and visit.principal is not None:
                    self._rates.leave(visit.principal.access_key)
            seconds = time.perf_counter() - started_at
            _log(request, visit, response, seconds, failure)
            self.metrics.count(request, visit, response, seconds)
        if request.body_exists and not request.content.is_eof():
            response.force_close()  # what is left of the body must not be taken for the next request
        return response

    # Who, what, and may they

    async def _admit(self, request: web.BaseRequest, raw: RawRequest, request_id: str) -> Visit:
        target = locate(raw, self._settings.s3_domain_names)
        if raw.method == "OPTIONS":  # a browser's preflight is never signed
            verified, principal, signer = None, None, await self._preflight_signer(raw)
            asked = Asked(operation=PREFLIGHT, target=target, copy_source=None)
        else:
            verified, principal = await self._authenticate(raw, target)
            asked = classify(raw, target)
            signer = self._authorise(raw, asked, principal)
        if principal is not None:
            await self._rates.enter(principal.access_key)
        return Visit(
            request=request,
            raw=raw,
            request_id=request_id,
            asked=asked,
            verified=verified,
            principal=principal,
            signer=signer,
            is_own=signer in (None, self._backend.signer),
        )

    def _authorise(self, raw: RawRequest, asked: Asked, principal: Principal | None) -> Signer | None:
        """With what the request is signed for the storage, None for nothing. Raises S3Error AccessDenied."""
        if principal is not None:
            access.check(asked, principal, raw, derived_bucket=self._derived_bucket)
            return principal.signer
        if access.is_public(asked, self._public):
            access.check_overrides(raw)
            return self._backend.signer
        # A form carries its signature in the body.
        if asked.operation.body is not Body.FORM and self._settings.s3_anonymous != "storage":
            raise S3Error("AccessDenied", "Sign the request with a key that `safelight keys create` has made.")
        access.check_derived(asked, self._derived_bucket)
        return None

    async def _preflight_signer(self, raw: RawRequest) -> Signer | None:
        """A presigned URL's preflight carries its signature, which is another method's and proves nothing. But its key
        may have credentials of the storage's own, by which alone the storage finds a tenant's bucket."""
        try:
            claim = authentication.read_claim(raw)
        except S3Error:
            return None
        principal = await self._keyring.find(claim.access_key) if claim is not None else None
        return principal.signer if principal is not None and principal.signer is not self._backend.signer else None

    async def _authenticate(self, raw: RawRequest, target: Target) -> tuple[Verified, Principal | None]:
        claim = authentication.read_claim(raw)
        if claim is None:
            return authentication.describe_unsigned(raw), None
        principal = await self._keyring.find(claim.access_key)
        verified = authentication.verify_claim(
            raw,
            claim,
            secret_key=principal.secret_key if principal is not None else None,
            rules=self._rules,
            now=datetime.now(UTC),
            host_bucket=target.host_bucket,
        )
        return verified, principal

    # What is done

    async def _serve(self, visit: Visit) -> web.StreamResponse:
        operation = visit.asked.operation
        if operation.body is Body.FORM:
            return await self._post_form(visit)
        if operation.body is Body.OBJECT:
            return await self._put(visit)
        if operation.body is Body.XML:
            return await self._send_xml(visit)
        if operation.is_copy:
            return await self._settle_late(visit, visit.outgoing())
        match operation.name:
            case "DeleteObject":
                return await self._delete(visit)
            case "GetObject" | "HeadObject":
                return await self._get(visit)
            case "ListBuckets" if visit.rights.reach.is_limited:
                return await self._list_buckets(visit)
        return await self._pass(visit, visit.outgoing())

    async def _pass(self, visit: Visit, outgoing: Outgoing) -> web.StreamResponse:
        """Nothing to do but to ask the storage."""
        async with self._send(visit, outgoing) as answer:
            return await answers.relay(visit.request, answer, self._make_head(visit, answer))

    async def _get(self, visit: Visit) -> web.StreamResponse:
        preset = visit.raw.parameter(b"preset")
        if preset is None:
            return await self._pass(visit, visit.outgoing())
        name = preset.decode("utf-8", "replace")
        found = next((item for item in self._jobs.presets if item.name == name), None)
        if found is None:
            known = ", ".join(item.name for item in self._jobs.presets)
            raise S3Error("InvalidArgument", f"There is no preset {name}. There are {known}.")
        key = keys.artifact_key(visit.bucket, visit.key, found.name, found.extension)
        path = path_of(self._derived_bucket, key)
        return await self._pass(visit, visit.outgoing(path=path, without=frozenset({b"preset"})))

    async def _put(self, visit: Visit) -> web.StreamResponse:
        """PutObject, UploadPart and AppendObject."""
        length = bodies.read_length(visit.raw, visit.verified)
        proof = bodies.make_proof(visit.raw, visit.verified, length)
        arrivals = self._arrivals(visit)
        passage = bodies.Passage(arrivals, proof, head_bytes=HEAD_BYTES)
        payload = _payload(visit.verified)
        if length == 0:  # an empty body would be complete before it is proven
            await passage.read(0)
            outgoing = visit.outgoing()
        elif visit.principal is None and arrivals.waits_for_leave:  # which only the storage can give a stranger
            outgoing = visit.outgoing(body=passage.pieces(), length=length, payload=payload, asks_leave=True)
        elif length is not None and isinstance(proof, Decoder) and self._passes_trailer(visit, proof):
            outgoing = visit.outgoing(
                body=trailers.frame(await passage.begun(), proof),
                payload=trailers.PAYLOAD,
                more=trailers.announce(proof, length),
            )
        else:
            outgoing = visit.outgoing(body=await passage.begun(), length=length, payload=payload)
        async with self._send(visit, outgoing) as answer:
            await failpoints.reach("door.after_put")
            if answer.is_success and self._records(visit):
                await self._record_put(visit, answer, passage)
            return await answers.relay(visit.request, answer, self._make_head(visit, answer))

    def _passes_trailer(self, visit: Visit, decoder: Decoder) -> bool:
        """Not those of strangers: their requests say nothing of a payload."""
        return self._settings.s3_trailers == "pass" and bool(decoder.promised) and visit.signer is not None

    async def _record_put(self, visit: Visit, answer: Answer, passage: bodies.Passage) -> None:
        if visit.asked.operation is APPEND_OBJECT:
            await self._recorder.settle(visit.bucket, visit.key, visit.signer)
        elif visit.raw.stated(_OWN_KEY) is not None:  # nobody but the client can read it
            await self._recorder.replaced(visit.bucket, visit.key)
        else:
            await self._recorder.stored(_found(visit, answer, passage.size_bytes, passage.head), visit.signer)

    async def _post_form(self, visit: Visit) -> web.StreamResponse:
        length = bodies.read_length(visit.raw, None)
        if not length:
            raise S3Error("MissingContentLength")
        boundary = forms.read_boundary(visit.raw.header(b"content-type") or b"")
        arriving = self._arrivals(visit).pieces()
        with self._room_for_form(visit):
            head = await forms.read_head(arriving, boundary)
        claim = policy.read_claim(head.fields)
        rights = visit.rights
        key = policy.resolve_key(head.fields, head.filename)
        fields = policy.replace_key(head.fields, key)
        if claim is not None:
            principal = await self._keyring.find(claim.access_key)
            secret_key = principal.secret_key if principal is not None else None
            now = datetime.now(UTC)
            stated = policy.verify(claim, head.fields, secret_key=secret_key, rules=self._rules, now=now)
            assert principal is not None
            await self._rates.take(principal.access_key)
            rights = principal
            fields = policy.rewrite_policy(fields, stated, principal.signer, now=now)
        elif visit.principal is None and self._settings.s3_anonymous != "storage":
            raise S3Error("AccessDenied", "The form has no signed policy.")
        if claim is not None or visit.principal is not None:
            access.check(visit.asked, rights, visit.raw, derived_bucket=self._derived_bucket)
            access.check_keys(visit.bucket, [key], rights.reach)
            access.check_grants(head.fields, rights)
        fresh = forms.write_head(head, fields)
        outgoing = visit.outgoing(
            body=_joined(fresh, forms.end_with_file(head, arriving), length - head.size_bytes),
            length=length - head.size_bytes + len(fresh),
            content_type=forms.write_content_type(boundary),
        )
        async with self._send(visit, outgoing, is_signed=claim is None) as answer:
            # A redirect to the form's own page is a success too.
            if (answer.is_success or answer.status == 303) and self._recorder.watches(visit.bucket, key):
                await self._recorder.settle(visit.bucket, key, visit.signer)
            return await self._relay_located(visit, answer, key)

    @contextlib.contextmanager
    def _room_for_form(self, visit: Visit) -> Iterator[None]:
        """While a form's fields come: who sends them is not known before the last of them, so strangers who send slowly
        must not take the room of all. Raises S3Error SlowDown."""
        if visit.principal is None and self._unproven_forms >= max(1, self._settings.s3_max_requests // _FORMS_SHARE):
            raise S3Error("SlowDown")
        self._unproven_forms += 1
        try:
            yield
        finally:
            self._unproven_forms -= 1

    async def _send_xml(self, visit: Visit) -> web.StreamResponse:
        """Operations whose body is XML: read and proven before the storage hears of it."""
        name = visit.asked.operation.name
        body = await self._read_xml(visit, checksums_of_body=name != "CompleteMultipartUpload")
        outgoing = visit.outgoing(body=body, payload=hashlib.sha256(body).hexdigest())
        if name == "DeleteObjects":
            return await self._delete_many(visit, outgoing, body)
        if visit.asked.operation.may_fail_late:
            return await self._settle_late(visit, outgoing)
        return await self._pass(visit, outgoing)

    async def _settle_late(self, visit: Visit, outgoing: Outgoing) -> web.StreamResponse:
        """The answer is read to its end, because a 200 may hold an error. Whitespace that keeps the connection alive
        meanwhile is sent on."""
        async with self._send(visit, outgoing) as answer:
            response = self._make_head(visit, answer)
            body = b""
            async for piece in answer.pieces():
                if not body and not piece.strip():
                    await _keep_alive(visit, response, piece)
                    continue
                body += piece
                if len(body) > _ANSWER_BYTES:
                    raise BackendUnavailable("the answer is too long")
            if answer.is_success and find_error(body) is None:
                body = await self._record_late(visit, body, response)
            return await _finish(visit, response, body)

    async def _record_late(self, visit: Visit, body: bytes, response: web.StreamResponse) -> bytes:
        """The body to answer with, once it is recorded. Raises as Recorder.settle, unless the head is out already."""
        address = f"{answers.own_address(visit.request, visit.raw)}{visit.path.decode('ascii')}"
        try:
            if self._records(visit):
                await failpoints.reach("door.after_put")
                await self._recorder.settle(visit.bucket, visit.key, visit.signer)
        except Exception as error:
            if not response.prepared:
                raise
            named = response.headers[answers.STORAGE_ID]  # as the head says, which is out
            failure = answers.make_error(_translate(error), visit.raw, named).body
            assert isinstance(failure, bytes)
            return failure
        return answers.replace_location(body, address)

    async def _delete(self, visit: Visit) -> web.StreamResponse:
        outgoing = visit.outgoing()
        if not self._recorder.watches(visit.bucket, visit.key) or "\x00" in visit.key:
            return await self._pass(visit, outgoing)
        if visit.raw.parameter(b"versionId") is not None:  # an older version, or the newest: only the storage knows
            async with self._send(visit, outgoing) as answer:
                if answer.is_success:
                    await self._recorder.settle(visit.bucket, visit.key, visit.signer)
                return await answers.relay(visit.request, answer, self._make_head(visit, answer))
        async with contextlib.AsyncExitStack() as stack:
            async with self._recorder.removing(visit.bucket, visit.key) as went_well:
                answer = await stack.enter_async_context(self._send(visit, outgoing))
                if answer.is_success:
                    went_well.append(True)
            return await answers.relay(visit.request, answer, self._make_head(visit, answer))

    async def _delete_many(self, visit: Visit, outgoing: Outgoing, body: bytes) -> web.StreamResponse:
        batch = parse_deletions(body)
        names = [item.key for item in batch.deletions]
        access.check_keys(visit.bucket, names, visit.rights.reach)
        plain = sorted({item.key for item in batch.deletions if item.version_id is None and "\x00" not in item.key})
        versioned = sorted({item.key for item in batch.deletions if item.version_id is not None})
        known = await self._recorder.known(visit.bucket, plain)
        async with self._send(visit, outgoing) as answer:
            answered = await answer.read(_ANSWER_BYTES)
            if answer.is_success and find_error(answered) is None:
                failed = find_failed(answered)
                await self._recorder.removed(visit.bucket, [item for item in known.items() if item[0] not in failed])
                for key in versioned:
                    if self._recorder.watches(visit.bucket, key):
                        await self._recorder.settle(visit.bucket, key, visit.signer)
            return await _finish(visit, self._make_head(visit, answer), answered)

    async def _list_buckets(self, visit: Visit) -> web.StreamResponse:
        """A key that is limited is shown the buckets that it may touch."""
        async with self._send(visit, visit.outgoing()) as answer:
            body = await answer.read(_ANSWER_BYTES)
            if answer.is_success:
                body = filter_buckets(body, visit.rights.reach.touches)
            return await _finish(visit, self._make_head(visit, answer), body)

    # Its tools

    def _send(
        self, visit: Visit, outgoing: Outgoing, *, is_signed: bool = True
    ) -> contextlib.AbstractAsyncContextManager[Answer]:
        """`is_signed` False: the body carries its own signature."""
        return self._backend.send(outgoing, visit.signer if is_signed else None)

    def _arrivals(self, visit: Visit) -> bodies.Arrivals:
        return bodies.Arrivals(visit.request, self._settings)

    async def _read_xml(self, visit: Visit, *, checksums_of_body: bool) -> bytes:
        length = bodies.read_length(visit.raw, visit.verified)
        if length is not None and length > MAX_XML_BYTES:
            raise S3Error("MalformedXML", "The body is too long.")
        proof = bodies.make_proof(visit.raw, visit.verified, length, checksums_of_body=checksums_of_body)
        return await bodies.Passage(self._arrivals(visit), proof, head_bytes=0).read(MAX_XML_BYTES)

    def _records(self, visit: Visit) -> bool:
        stores = visit.asked.operation.effect is Effect.STORES
        return stores and self._recorder.watches(visit.bucket, visit.key)

    def _make_head(self, visit: Visit, answer: Answer) -> web.StreamResponse:
        origin = (self._backend.base_url, answers.own_address(visit.request, visit.raw))
        return answers.make_head(answer, visit.request_id, origin=origin)

    async def _relay_located(self, visit: Visit, answer: Answer, key: str) -> web.StreamResponse:
        response = self._make_head(visit, answer)
        body = await answer.read(_ANSWER_BYTES)
        address = answers.own_address(visit.request, visit.raw) + path_of(visit.bucket, key).decode("ascii")
        if answer.is_success and "Location" in response.headers:
            response.headers["Location"] = address
        return await _finish(visit, response, answers.replace_location(body, address) if answer.is_success else body)


def read_raw(request: web.BaseRequest) -> RawRequest:
    """The request as it came over the wire. Raises S3Error InvalidURI, InvalidArgument."""
    target = request.raw_path.encode("utf-8", "surrogateescape")
    return read_request(request.method, target, request.raw_headers)


async def _keep_alive(visit: Visit, response: web.StreamResponse, space: bytes) -> None:
    """Send on the whitespace of an answer that takes its time."""
    if not response.prepared:
        response.headers.pop("Content-Length", None)
        response.enable_chunked_encoding()
        await response.prepare(visit.request)
    await response.write(space)


async def _finish(visit: Visit, response: web.StreamResponse, body: bytes) -> web.StreamResponse:
    if not response.prepared:
        response.headers.pop("Content-Length", None)
        response.content_length = len(body)
        await response.prepare(visit.request)
    await response.write(body)
    await response.write_eof()
    return response


async def _joined(first: bytes, rest: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    """A form for the storage. Raises S3Error IncompleteBody where the client's ends early."""
    yield first
    async for piece in rest:
        length -= len(piece)
        yield piece
    if length:
        raise S3Error("IncompleteBody")


def _found(visit: Visit, answer: Answer, size_bytes: int, head: bytes) -> Found:
    sha256 = visit.verified.payload_sha256 if visit.verified is not None else None
    return Found(
        bucket=visit.bucket,
        key=visit.key,
        etag=read_etag(answer) or "",
        version_id=read_version(answer),
        size_bytes=size_bytes,
        head=head,
        sha256=bytes.fromhex(sha256) if sha256 is not None else None,
    )


def _payload(verified: Verified | None) -> str | None:
    """The client's own hash goes into our signature: then the storage verifies it as well."""
    if verified is not None and verified.payload_mode is PayloadMode.SHA256:
        return verified.payload_sha256
    return None


def _translate(error: Exception) -> S3Error:
    match error:
        case S3Error():
            return error
        case BackendUnavailable():
            log.warning("request.unavailable", message="The storage cannot be used.", cause=str(error))
            return S3Error("ServiceUnavailable", "The storage cannot be used at the moment. Try again.")
        case DatabaseUnavailable():
            log.warning("request.unavailable", message="Postgres cannot be used.", cause=str(error))
            return S3Error("ServiceUnavailable", "Postgres cannot be used at the moment. Try again.")
        case _:
            log.error("request.failed", message="A request failed unexpectedly.", exc_info=error)
            return S3Error("InternalError")


def _log(
    request: web.BaseRequest,
    visit: Visit | None,
    response: web.StreamResponse,
    seconds: float,
    failure: S3Error | None,
) -> None:
    asked = visit.asked if visit is not None else None
    theirs = response.headers[answers.STORAGE_ID]
    relayed = {"storage_request_id": theirs} if theirs != response.headers[answers.OWN_ID] else {}
    # Of what was not let in, no more is known than what it says: never its query, which may hold a signature.
    refused = {} if failure is None else {"code": failure.code, "path": request.raw_path.partition("?")[0]}
    log.info(
        "request.done",
        message="A request was answered.",
        method=request.method,
        operation=asked.operation.name if asked is not None else None,
        bucket=asked.target.bucket if asked is not None else None,
        key=asked.target.key if asked is not None else None,
        access_key=visit.principal.access_key if visit is not None and visit.principal is not None else None,
        status=response.status,
        seconds=round(seconds, 4),
        **relayed,
        **refused,
    )
