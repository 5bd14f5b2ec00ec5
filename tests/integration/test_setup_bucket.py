"""`safelight setup bucket` against SeaweedFS, Ceph and moto: what it sets and says, and that it keeps the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from safelight.bucketry import CREATED, REMOVED
from tests.clients.moto import Moto
from tests.integration.hooked import TOKEN
from tests.integration.straight import client
from tests.rgw import Rgw
from tests.servers import S3Backend

URL = "http://127.0.0.1:9/hooks/bucket-events"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:photos"


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An S3 server that knows every rule, and takes each ARN."""
    server = Moto(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


def run(backend: S3Backend, *arguments: str, derived: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.defpath,
        "SAFELIGHT_S3_ENDPOINT": backend.endpoint,
        "SAFELIGHT_S3_ACCESS_KEY": backend.access_key,
        "SAFELIGHT_S3_SECRET_KEY": backend.secret_key,
        "SAFELIGHT_DERIVED_BUCKET": derived,
        "SAFELIGHT_HOOK_TOKEN": TOKEN,
        **more,
    }
    command = [sys.executable, "-m", "safelight", "setup", "bucket", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def steps(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {step["what"]: step["result"] for step in json.loads(done.stdout)["steps"]}


def test_everything_is_set_once_and_the_rules_of_others_are_kept(moto: Moto, bucket_prefix: str) -> None:
    """A dry run changes nothing; the first run sets buckets, lifecycle, CORS and events beside what was there; the
    second finds all of it there; another prefix or origin changes ours alone."""
    backend, name, derived = moto.backend, f"{bucket_prefix}-photos", f"{bucket_prefix}-derived"
    s3 = client(backend)
    options = ("--arn", QUEUE, "--origin", "https://photos.example.org", "--storage", "aws", "--json")
    dry = run(backend, name, *options, "--dry-run", derived=derived)
    assert set(steps(dry).values()) == {"would be made"}, dry.stderr
    assert name not in [item["Name"] for item in s3.list_buckets()["Buckets"]]
    boto3.client(
        "sqs",
        endpoint_url=backend.endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    ).create_queue(QueueName="photos")
    s3.create_bucket(Bucket=name)
    others = {"Id": "theirs", "QueueArn": QUEUE, "Events": ["s3:ObjectRestore:*"]}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": [others]})
    expiry = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [expiry]})
    first = run(backend, name, *options, derived=derived)
    assert first.returncode == 0, first.stderr
    assert steps(first) == {
        f"bucket {name}": "there",
        f"bucket {derived}": "made",
        f"lifecycle of {name}": "made",
        f"lifecycle of {derived}": "made",
        f"CORS of {name}": "made",
        f"events of {name}": "made",
    }
    queues = s3.get_bucket_notification_configuration(Bucket=name)["QueueConfigurations"]
    assert {item["Id"]: set(item["Events"]) for item in queues} == {
        "theirs": {"s3:ObjectRestore:*"},
        "safelight": {*CREATED, *REMOVED},
    }
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]}
    assert rules["theirs"]["Expiration"] == {"Days": 3}
    assert rules["safelight-dangling-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    (cors,) = s3.get_bucket_cors(Bucket=name)["CORSRules"]
    assert cors["AllowedOrigins"] == ["https://photos.example.org"]
    assert set(steps(run(backend, name, *options, derived=derived)).values()) == {"there"}
    changed = run(backend, name, *options, "--prefix", "in/", "--no-removals", derived=derived)
    assert [step for step, result in steps(changed).items() if result == "changed"] == [f"events of {name}"]
    queues = s3.get_bucket_notification_configuration(Bucket=name)["QueueConfigurations"]
    (ours,) = (item for item in queues if item["Id"] == "safelight")
    assert (set(ours["Events"]), len(queues)) == (set(CREATED), 2)


def test_seaweedfs_is_told_by_hand(s3_backend: S3Backend, bucket_prefix: str) -> None:
    """It has no notifications by S3: the command makes what it can, prints the filer's notification.toml without the
    token itself, and ends with code 1."""
    name = f"{bucket_prefix}-photos"
    done = run(s3_backend, name, "--url", URL, derived=f"{bucket_prefix}-derived")
    assert done.returncode == 1, done.stderr
    assert f'endpoint = "{URL}"' in done.stdout
    assert "SAFELIGHT_HOOK_TOKEN" in done.stdout
    assert TOKEN not in done.stdout
    found = [item["Name"] for item in client(s3_backend).list_buckets()["Buckets"]]
    assert {name, f"{bucket_prefix}-derived"} <= set(found)
    again = run(s3_backend, name, "--url", URL, "--json", derived=f"{bucket_prefix}-derived")
    assert json.loads(again.stdout)["storage"] == "seaweedfs"
    assert steps(again)[f"bucket {name}"] == "there"


@pytest.mark.needs_ceph
def test_ceph_gets_a_topic_and_its_notifications(rgw: Rgw, bucket_prefix: str) -> None:
    """Recognised as Ceph, it gets a topic that pushes to the hook with the token, and the bucket's events go there; a
    second run finds all of it there."""
    name, derived = f"{bucket_prefix}-photos", f"{bucket_prefix}-derived"
    done = run(rgw.backend, name, "--url", URL, "--json", derived=derived)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["storage"] == "ceph"
    (topic,) = client(rgw.backend).get_bucket_notification_configuration(Bucket=name)["TopicConfigurations"]
    assert topic["TopicArn"] == f"arn:aws:sns:default::safelight-{name}"  # another Safelight's is another one
    assert set(topic["Events"]) == {*CREATED, *REMOVED}
    again = run(rgw.backend, name, "--url", URL, "--json", derived=derived)
    assert set(steps(again).values()) <= {"there", "not supported"}, again.stdout
    unsaid = run(rgw.backend, name, derived=derived)
    assert unsaid.returncode == 1
    assert "--url" in unsaid.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Photos"], "cannot be a bucket"),
        (["the-derived"], "is the bucket of previews"),
        (["photos", "--arn", "photos"], "an ARN of a queue or a topic"),
        (["photos", "--arn", "arn:aws:lambda:eu-central-1:1:function:f"], "an ARN of a queue or a topic"),
        (["photos", "--url", "photos.example.org"], "http://"),
        (["photos"], "cannot be used"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: list[str], words: str) -> None:
    """What cannot be done is told with what to correct, and code 2."""
    nowhere = S3Backend(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b")
    done = run(nowhere, *arguments, derived="the-derived")
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
