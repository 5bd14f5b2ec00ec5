"""Where a stack started here can be reached, and with which key: chosen, waited for, written down.

Only for `safelight up`; a gateway in production is told its ports and has keys of its own.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safelight.embedded.folder import LOCALHOST, choose_port, is_free, keep_secrets
from safelight.settings import Settings, SettingsError
from storage import sealing

USUAL_PORTS = {"SAFELIGHT_HTTP_PORT": 8080, "SAFELIGHT_S3_PORT": 8081}


def choose_gateway_ports(environ: Mapping[str, str], warn: Callable[[str], None]) -> dict[str, str]:
    """The gateway's ports, as environment variables: as asked, or the usual ones, or free ones with a warning.

    `environ` has been checked. Raises SettingsError for a port that was asked for and is taken.
    """
    host = environ.get("SAFELIGHT_HTTP_HOST", "").strip() or LOCALHOST
    chosen: dict[str, int] = {}
    for name, usual in USUAL_PORTS.items():
        asked = environ.get(name, "").strip()
        port = int(asked) if asked else usual
        if port and port not in chosen.values() and is_free(port, host):
            chosen[name] = port
        elif asked and port:
            raise SettingsError(
                [
                    f"{name} is {port}, but something listens on {host}:{port} already. "
                    f"Stop that program, set another port, or set {name}=0 for any free one."
                ]
            )
        else:
            chosen[name] = choose_port(taken=chosen.values())
            if not asked:
                warn(f"Port {usual} is taken; using {chosen[name]} instead (set {name} to choose)")
    return {name: str(port) for name, port in chosen.items()}


def keep_key(data_dir: Path) -> dict[str, str]:
    """This stack's own access key and secret key: made once, in the form that schema.sql asks for."""
    secrets = keep_secrets(data_dir, ["access_key", "secret_key"])
    return {"access_key": f"SL{secrets['access_key'][:18].upper()}", "secret_key": secrets["secret_key"]}


def keep_master_key(data_dir: Path) -> str:
    """This stack's own master key: made once, and needed by every key that opens its S3 door."""
    return keep_secrets(data_dir, ["master_key"], sealing.generate)["master_key"]


def keep_hook_token(data_dir: Path) -> str:
    """This stack's own token for bucket events: made once."""
    return keep_secrets(data_dir, ["hook_token"])["hook_token"]


def hook_url(environment: Mapping[str, str]) -> str:
    """Where the gateway of these settings takes bucket events, as seen from this machine."""
    host = environment.get("SAFELIGHT_HTTP_HOST", "").strip() or LOCALHOST
    host = {"0.0.0.0": LOCALHOST, "::": "::1"}.get(host, host)  # noqa: S104 - never listened on here
    return f"http://{f'[{host}]' if ':' in host else host}:{environment['SAFELIGHT_HTTP_PORT']}/hooks/bucket-events"


def read_urls(path: Path) -> dict[str, Any] | None:
    """What a gateway or S3 door wrote when it began to listen; None before that."""
    try:
        urls: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    return urls


def answers(url: str) -> bool:
    """Whether a GET is answered with 200. Goes to the address itself, never through a proxy."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or LOCALHOST, parts.port, timeout=2)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def describe(
    settings: Settings, urls: Mapping[str, Any], keys: Mapping[str, str], token: str, *, master_key: str
) -> dict[str, object]:
    """The content of connection.json: every address and key of a running stack. `master_key`: empty where the operator
    keeps it elsewhere."""
    storage = settings.storage
    return {
        "http_url": urls["http_url"],
        "s3_url": urls["s3_url"],
        "access_key": keys["access_key"],
        "secret_key": keys["secret_key"],
        "token": token,
        "postgres_dsn": storage.postgres_dsn,
        "redis_url": settings.jobs.redis_url,
        "backend": {
            "endpoint": storage.s3_endpoint,
            "access_key": storage.s3_access_key,
            "secret_key": storage.s3_secret_key,
        },
        "derived_bucket": storage.derived_bucket,
        "master_key": master_key,
    }
