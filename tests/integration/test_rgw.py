"""Ceph's RGW as tests start it: it serves, tells its users apart, and pushes what happens in a bucket."""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.rgw import Rgw, User
from tests.servers import S3Backend

pytestmark = pytest.mark.needs_ceph
PUSH_SECONDS = 10


@pytest.fixture
def pushes() -> Iterator[tuple[str, queue.Queue[Any]]]:
    """An address that notifications may be pushed to, and what came."""
    came: queue.Queue[Any] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """What came is looked at by the test."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", came
        server.shutdown()
        thread.join()


def test_users_are_told_apart(rgw: Rgw) -> None:
    """What one user has stored another one may not read, and a wrong secret opens nothing."""
    name = f"rgw-{uuid.uuid4().hex[:10]}"
    other = rgw.make_user(f"other-{uuid.uuid4().hex[:10]}")
    own = _client(rgw.backend)
    own.create_bucket(Bucket=name)
    own.put_object(Bucket=name, Key="note", Body=b"text")
    with pytest.raises(ClientError, match="AccessDenied"):
        _client(_backend(rgw, other)).get_object(Bucket=name, Key="note")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        _client(S3Backend(endpoint=rgw.url, access_key=rgw.backend.access_key, secret_key="x" * 40)).list_buckets()


def test_what_happens_is_pushed(rgw: Rgw, pushes: tuple[str, queue.Queue[Any]]) -> None:
    """A bucket with a notification tells of a new object."""
    name = f"rgw-{uuid.uuid4().hex[:10]}"
    address, came = pushes
    own = _client(rgw.backend)
    own.create_bucket(Bucket=name)
    topic = _client(rgw.backend, "sns").create_topic(Name=name, Attributes={"push-endpoint": address})["TopicArn"]
    rule = {"Id": "all", "TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}
    own.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"TopicConfigurations": [rule]})
    own.put_object(Bucket=name, Key="two words", Body=b"text")
    (record,) = came.get(timeout=PUSH_SECONDS)["Records"]
    assert (record["s3"]["bucket"]["name"], record["s3"]["object"]["size"]) == (name, 4)


def _backend(rgw: Rgw, user: User) -> S3Backend:
    return S3Backend(endpoint=rgw.url, access_key=user.access_key, secret_key=user.secret_key)


def _client(backend: S3Backend, service: str = "s3") -> Any:
    return boto3.client(
        service,
        endpoint_url=backend.endpoint,
        aws_access_key_id=backend.access_key,
        aws_secret_access_key=backend.secret_key,
        region_name=backend.region,
        config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 1}),
    )
