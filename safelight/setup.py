"""`safelight setup`: how preparing the storage is asked for. The work lies in safelight.bucket_setup."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

from safelight import console
from safelight.console import AsJson

setup_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Prepare the storage: buckets, events, rules."
)


class StorageKind(Enum):
    """What --storage takes."""

    AUTO = "auto"
    MINIO = "minio"
    RUSTFS = "rustfs"
    CEPH = "ceph"
    AWS = "aws"
    SEAWEEDFS = "seaweedfs"
    OTHER = "other"


@setup_app.callback()
def setup() -> None:
    """Prepare the storage: buckets, events, rules."""


@setup_app.command("bucket")
def setup_bucket(
    bucket: Annotated[str, typer.Argument(help="The bucket that photos are written to.")],
    *,
    storage: Annotated[StorageKind, typer.Option(help="What the storage is; auto asks it.")] = StorageKind.AUTO,
    arn: Annotated[
        str | None,
        typer.Option(
            help="Where events go: the ARN of a queue, a topic or a webhook target, or the word eventbridge. "
            "Left out: MinIO's webhook target 1, or a topic made in Ceph."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A gateway's hook as the storage sees it: http://.../hooks/bucket-events")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only events of keys that begin like this.")] = "",
    origin: Annotated[
        list[str] | None, typer.Option(help="Origin of pages that upload straight to the storage; may be repeated.")
    ] = None,
    abort_days: Annotated[
        int, typer.Option(min=1, max=365, help="Multipart uploads left unfinished for so long are ended.")
    ] = 7,
    removals: Annotated[
        bool,
        typer.Option(
            "--removals/--no-removals",
            help="Tell of removed objects too. Ceph 16 dies of a batch delete in a bucket that does.",
        ),
    ] = True,
    queued: Annotated[
        bool,
        typer.Option(
            "--queued/--at-once",
            help="Ceph: keep events until they are delivered, some 30 s late at first; or push each while its client "
            "waits, and lose what cannot be delivered.",
        ),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare a bucket for photos that are written straight to it. Safe to repeat; rules of others are kept.

    It makes the bucket and that of previews, lets multipart uploads end that nobody finishes, opens the bucket to
    browsers (--origin), and has its events sent to Safelight.

    Run it with a key that may do so: SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY, an administrator's for once.

      MinIO      safelight setup bucket photos     (its webhook target is set by its environment: minio/README.md)

      Ceph       safelight setup bucket photos --url https://photos.example.org/hooks/bucket-events

      AWS        safelight setup bucket photos --arn arn:aws:sqs:eu-central-1:123456789012:photos

      SeaweedFS  safelight setup bucket photos     (prints what to put into its notification.toml)

    Exit code: 0 events are set up; 1 something is left to do by hand, or was refused; 2 wrong usage.
    """
    from safelight.bucket_setup import Asked, prepare  # large: no other command needs it

    asked = Asked(
        bucket=bucket,
        kind=None if storage is StorageKind.AUTO else storage.value,
        arn=arn,
        url=url,
        prefix=prefix,
        origins=tuple(origin or ()),
        abort_days=abort_days,
        removals=removals,
        queued=queued,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(prepare(asked, console.with_local_servers(os.environ)))
