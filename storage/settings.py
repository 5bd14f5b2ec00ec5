"""What the storage layer must be told: where Postgres and S3 are, and how much of each it may use."""

from __future__ import annotations

from dataclasses import dataclass, field


def setting(help_text: str, *, minimum: float | None = None, maximum: float | None = None) -> dict[str, object]:
    """Field metadata: the sentence shown by `safelight settings`, and the allowed range (same unit as the field)."""
    return {"help": help_text, "minimum": minimum, "maximum": maximum}


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    postgres_dsn: str = field(
        metadata=setting("Postgres 15 or later, as postgresql://user:password@host:port/database.")
    )
    s3_access_key: str = field(metadata=setting("Access key of the S3 storage behind Safelight."))
    s3_secret_key: str = field(metadata=setting("Secret key of the S3 storage behind Safelight."), repr=False)
    s3_endpoint: str | None = field(
        default=None, metadata=setting("URL of the S3 storage behind Safelight; unset means AWS itself.")
    )
    s3_public_endpoint: str | None = field(
        default=None,
        metadata=setting(
            "URL of that storage as clients see it, for direct uploads: scheme, host and port. Default: S3_ENDPOINT."
        ),
    )
    s3_region: str = field(default="us-east-1", metadata=setting("Region that requests to the storage are signed for."))
    s3_max_connections: int = field(
        default=32, metadata=setting("Connections to the storage that one process keeps.", minimum=1, maximum=1000)
    )
    s3_connect_timeout_seconds: float = field(
        default=2, metadata=setting("How long connecting to the storage may take.", minimum=0.1, maximum=60)
    )
    s3_read_timeout_seconds: float = field(
        default=20, metadata=setting("How long the storage may stay silent during an answer.", minimum=0.5, maximum=300)
    )
    default_bucket: str = field(
        default="photos", metadata=setting("Bucket of uploads that name none; made at the start.")
    )
    derived_bucket: str = field(
        default="derived", metadata=setting("Bucket that previews are written to; made at the start.")
    )
    quarantine_bucket: str = field(
        default="",
        metadata=setting(
            "Bucket that rejected photos of direct uploads are moved to; unset: they stay where they are."
        ),
    )
    postgres_pool_size: int = field(
        default=10, metadata=setting("Postgres connections that one process keeps.", minimum=2, maximum=200)
    )
    postgres_idle_seconds: float = field(
        default=10,
        metadata=setting(
            "Postgres ends a transaction that waits for its own process this long, or that takes twice as long in all "
            "(from version 17 on): a frozen process must hold no locks.",
            minimum=0.5,
            maximum=300,
        ),
    )
    postgres_timeout_seconds: float = field(
        default=10, metadata=setting("How long one statement may take.", minimum=0.5, maximum=300)
    )

    @property
    def public_endpoint(self) -> str:
        """The storage's address as clients see it, without a slash at its end."""
        aws = f"https://s3.{self.s3_region}.amazonaws.com"
        return (self.s3_public_endpoint or self.s3_endpoint or aws).rstrip("/")

    @property
    def closed_buckets(self) -> tuple[str, ...]:
        """Buckets that clients store nothing into and whose objects are no photos."""
        return (self.derived_bucket, self.quarantine_bucket) if self.quarantine_bucket else (self.derived_bucket,)
