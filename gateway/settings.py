"""What the gateway must be told: where it listens and what strangers may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from storage.settings import setting


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    http_host: str = field(default="127.0.0.1", metadata=setting("Address that REST listens on."))
    http_port: int = field(
        default=8080,
        metadata=setting("Port of REST, Swagger UI and stats; 0 picks a free one.", minimum=0, maximum=65535),
    )
    s3_port: int = field(
        default=8081, metadata=setting("Port of the S3 door; 0 picks a free one.", minimum=0, maximum=65535)
    )
    master_key: str = field(
        default="",
        metadata=setting(
            "Seals the secrets of keys that open the S3 door: 32 bytes as 64 hexadecimal digits or base64; several are "
            "separated by commas, and the first one seals. `safelight keys master` makes one."
        ),
        repr=False,
    )
    s3_host: str = field(default="127.0.0.1", metadata=setting("Address that the S3 door listens on."))
    s3_processes: int = field(
        default=1, metadata=setting("Processes of the S3 door, all on one port.", minimum=1, maximum=256)
    )
    s3_max_requests: int = field(
        default=1000,
        metadata=setting(
            "Requests in flight in one process of the S3 door; more get SlowDown.", minimum=1, maximum=100_000
        ),
    )
    s3_max_requests_per_key: int = field(
        default=500,
        metadata=setting(
            "Requests of one key in flight in one process of the S3 door; more get SlowDown.",
            minimum=1,
            maximum=100_000,
        ),
    )
    s3_requests_per_second: float = field(
        default=5000,
        metadata=setting("S3 requests a second that one key may make; 0 means any.", minimum=0, maximum=1e6),
    )
    s3_requests_burst: int = field(
        default=20_000, metadata=setting("S3 requests that a key may make at once.", minimum=1, maximum=10_000_000)
    )
    s3_trailers: str = field(
        default="drop",
        metadata=setting(
            "Checksums that clients send behind a body: pass (the storage verifies and keeps them), or drop (verified "
            "here alone: for storages that take no STREAMING-UNSIGNED-PAYLOAD-TRAILER, such as Ceph RGW 16)."
        ),
    )
    s3_stall_seconds: float = field(
        default=60,
        metadata=setting(
            "A client of the S3 door that takes nothing of its answer for this long is cut off.",
            minimum=0.1,
            maximum=86400,
        ),
    )
    s3_domains: str = field(
        default="",
        metadata=setting("Domains whose subdomains are buckets (virtual-host style), separated by commas."),
    )
    s3_public_hosts: str = field(
        default="",
        metadata=setting("Names that clients sign where a proxy before the S3 door changes the Host header."),
    )
    s3_public_places: str = field(
        default="",
        metadata=setting(
            "What anybody may read by S3, as bucket/prefix separated by commas: derived/photos/public/ for previews."
        ),
    )
    s3_anonymous: str = field(
        default="refuse",
        metadata=setting(
            "Unsigned S3 requests for anything else: refuse, or storage (pass them unsigned; the storage decides)."
        ),
    )
    s3_tls_cert: str = field(
        default="", metadata=setting("PEM file with the S3 door's certificate; makes it speak TLS.")
    )
    s3_tls_key: str = field(default="", metadata=setting("PEM file with the key of that certificate."))
    max_upload_bytes: int = field(
        default=512 << 20, metadata=setting("Larger photos are refused.", minimum=1, maximum=48 << 30)
    )
    max_form_files: int = field(
        default=100, metadata=setting("Files that one form may carry.", minimum=1, maximum=10_000)
    )
    upload_memory_bytes: int = field(
        default=64 << 20,
        metadata=setting(
            "Memory that all uploads in flight share; the others wait.", minimum=16 << 20, maximum=64 << 30
        ),
    )
    max_uploads: int = field(
        default=256,
        metadata=setting(
            "Uploads in flight in one gateway, of one key three quarters of them; more get 429.",
            minimum=1,
            maximum=100_000,
        ),
    )
    direct_upload_seconds: float = field(
        default=3600,
        metadata=setting("How long the addresses of a direct upload are good.", minimum=60, maximum=7 * 86400),
    )
    max_open_uploads: int = field(
        default=1000,
        metadata=setting("Direct uploads that one key may have open; more get 429.", minimum=1, maximum=1_000_000),
    )
    requests_per_second: float = field(
        default=500, metadata=setting("Requests a second that one key may make; 0 means any.", minimum=0, maximum=1e6)
    )
    requests_burst: int = field(
        default=2000, metadata=setting("Requests that a key may make at once.", minimum=1, maximum=10_000_000)
    )
    upload_queue_seconds: float = field(
        default=60, metadata=setting("How long an upload may wait for memory before 503.", minimum=0, maximum=600)
    )
    chunk_timeout_seconds: float = field(
        default=10,
        metadata=setting("A client silent for this long during its body is cut off.", minimum=0.1, maximum=600),
    )
    min_bytes_per_second: int = field(
        default=4 << 10,
        metadata=setting("A body that comes more slowly than this is cut off.", minimum=0, maximum=1 << 30),
    )
    min_bytes_per_second_crowded: int = field(
        default=32 << 10,
        metadata=setting("The same, while other uploads wait for memory.", minimum=0, maximum=1 << 30),
    )
    record_seconds: float = field(
        default=5,
        metadata=setting("How long a stored photo waits for Postgres before 503.", minimum=0, maximum=60),
    )
    session_hours: float = field(
        default=12, metadata=setting("How long a browser stays signed in.", minimum=0.1, maximum=24 * 30)
    )
    max_wait_seconds: float = field(
        default=60, metadata=setting("The longest ?wait= that is honoured.", minimum=0, maximum=600)
    )
    max_streams: int = field(
        default=1000, metadata=setting("Event streams that one gateway holds open.", minimum=0, maximum=100_000)
    )
    max_streams_per_key: int = field(
        default=100, metadata=setting("The same, for one key.", minimum=0, maximum=100_000)
    )
    events_hours: float = field(
        default=168, metadata=setting("How long events are kept for who comes back.", minimum=1, maximum=24 * 366)
    )
    reconcile_interval_seconds: float = field(
        default=5,
        metadata=setting(
            "Pause between two windows of keys that a gateway compares with the storage; 0 turns it off.",
            minimum=0,
            maximum=86400,
        ),
    )
    reconcile_pass_seconds: float = field(
        default=3600,
        metadata=setting("Time between the starts of two passes over a bucket.", minimum=1, maximum=30 * 86400),
    )
    reconcile_buckets: str = field(
        default="known",
        metadata=setting(
            "known: buckets with photos, the default one and those that a hook names; all: every bucket of the storage "
            "that may be listed, where a hook for * watches."
        ),
    )
    reconcile_window_keys: int = field(
        default=1000, metadata=setting("Keys that are compared at a time.", minimum=1, maximum=1000)
    )
    reconcile_grace_seconds: float = field(
        default=300,
        metadata=setting(
            "Younger objects and rows are left alone: they may be under way.", minimum=0, maximum=7 * 86400
        ),
    )
    dangling_hours: float = field(
        default=24,
        metadata=setting("Multipart uploads of others older than this are reported.", minimum=0, maximum=24 * 365),
    )

    hook_token: str = field(
        default="",
        metadata=setting(
            "Opens POST /hooks/bucket-events to storages that tell what came and went: 16 characters or more; several "
            "are separated by commas, so that one can be changed. Unset: the address is closed."
        ),
        repr=False,
    )
    hook_concurrency: int = field(
        default=4,
        metadata=setting(
            "Objects that one process looks at for bucket events at a time; fewer than SAFELIGHT_POSTGRES_POOL_SIZE.",
            minimum=1,
            maximum=64,
        ),
    )
    hook_sns_topics: str = field(
        default="",
        metadata=setting(
            "ARNs of the SNS topics that may send to /hooks/bucket-events, separated by commas. They need no token: "
            "their signature is verified."
        ),
    )
    hook_sns_origins: str = field(
        default="",
        metadata=setting(
            "Origins beside AWS that certificates and confirmations of those topics may come from, such as "
            "http://127.0.0.1:4566: for tests, where something plays SNS."
        ),
    )
    events_redis_url: str = field(
        default="",
        metadata=setting("Redis that MinIO pushes events to, for `safelight events`; unset means SAFELIGHT_REDIS_URL."),
        repr=False,
    )
    events_redis_key: str = field(
        default="bucketevents", metadata=setting("Key of that list: MINIO_NOTIFY_REDIS_KEY in MinIO, format `access`.")
    )
    sqs_queue_url: str = field(default="", metadata=setting("Address of the SQS queue that `safelight events` reads."))
    sqs_endpoint: str = field(default="", metadata=setting("URL of the SQS service; unset means AWS itself."))
    sqs_region: str = field(default="", metadata=setting("Region of SQS; unset means SAFELIGHT_S3_REGION."))
    sqs_access_key: str = field(
        default="", metadata=setting("Access key for SQS; unset means SAFELIGHT_S3_ACCESS_KEY.")
    )
    sqs_secret_key: str = field(
        default="", metadata=setting("Secret key for SQS; unset means SAFELIGHT_S3_SECRET_KEY."), repr=False
    )

    @property
    def hook_tokens(self) -> tuple[str, ...]:
        return _split(self.hook_token)

    @property
    def hook_sns_topic_arns(self) -> tuple[str, ...]:
        return _split(self.hook_sns_topics)

    @property
    def hook_sns_origin_names(self) -> tuple[str, ...]:
        return _split(self.hook_sns_origins)

    @property
    def s3_domain_names(self) -> tuple[str, ...]:
        return _split(self.s3_domains)

    @property
    def s3_public_host_names(self) -> tuple[str, ...]:
        return _split(self.s3_public_hosts)

    @property
    def s3_public_place_names(self) -> tuple[str, ...]:
        return _split(self.s3_public_places)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
