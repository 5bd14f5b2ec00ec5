"""Settings from the environment: parsed once, every problem told at once, no secret ever echoed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from processors.contract import Preset
from safelight.cli import app
from safelight.settings import SECTIONS, Settings, SettingsError, load, process_settings, variables

NEEDED = {
    "SAFELIGHT_POSTGRES_DSN": "postgresql://user:hidden-dsn@db:5432/safelight",
    "SAFELIGHT_REDIS_URL": "redis://:hidden-redis@cache:6379/0",
    "SAFELIGHT_S3_ACCESS_KEY": "access",
    "SAFELIGHT_S3_SECRET_KEY": "hidden-secret",
}


def read(**more: str) -> Settings:
    return load(NEEDED | {f"SAFELIGHT_{name.upper()}": text for name, text in more.items()})


def problems(**more: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(**more)
    return caught.value.problems


def test_four_settings_are_enough() -> None:
    """With the addresses and keys given, everything else has its default."""
    found = read()
    assert found.storage.postgres_dsn == NEEDED["SAFELIGHT_POSTGRES_DSN"]
    assert (found.jobs.lease_seconds, found.gateway.http_port) == (30, 8080)
    assert [preset.name for preset in found.jobs.presets] == ["thumb", "preview"]


def test_every_missing_setting_is_named() -> None:
    """An empty environment names all that must be set, each with what it is."""
    with pytest.raises(SettingsError) as caught:
        load({})
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "SAFELIGHT_POSTGRES_DSN",
        "SAFELIGHT_S3_ACCESS_KEY",
        "SAFELIGHT_S3_SECRET_KEY",
        "SAFELIGHT_REDIS_URL",
    ]


def test_all_problems_are_told_at_once() -> None:
    """Wrong values of several sections, an unknown name and a contradiction come in one report, one sentence each."""
    found = problems(
        postgres_dsn="mysql://db",
        lease_seconds="soon",
        http_port="70000",
        log_format="xml",
        http_prot="8080",
        default_bucket="same",
        derived_bucket="same",
    )
    names = ["POSTGRES_DSN", "LEASE_SECONDS", "HTTP_PORT", "LOG_FORMAT", "HTTP_PROT", "DEFAULT_BUCKET"]
    assert [problem.split()[0] for problem in found] == [f"SAFELIGHT_{name}" for name in names]
    assert all(problem.endswith((".", "them.")) for problem in found)


def test_an_empty_value_is_no_value() -> None:
    """NAME= and blanks mean the default, as compose files write them."""
    assert read(lease_seconds="", s3_endpoint="  ").jobs.lease_seconds == 30


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("1000000", 1_000_000), ("512MiB", 512 << 20), ("512MB", 512 << 20), ("512m", 512 << 20), ("2 GiB", 2 << 30)),
        *(("64k", 64 << 10), ("3g", 3 << 30)),
    ],
)
def test_sizes_have_units(text: str, size_bytes: int) -> None:
    """Sizes are bytes, or binary multiples in any usual spelling."""
    assert read(max_upload_bytes=text).gateway.max_upload_bytes == size_bytes


@pytest.mark.parametrize("text", ["many", "-1", "1.5MiB", "1 EiB", "MiB", "0x10", "1e6"])
def test_other_sizes_are_refused(text: str) -> None:
    """What is no size is quoted, and how one is written is shown."""
    (problem,) = problems(max_upload_bytes=text)
    assert repr(text) in problem
    assert "512MiB" in problem


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1s", "", "0x1"])
@pytest.mark.parametrize("name", ["lease_seconds", "max_attempts"])
def test_only_finite_numbers_are_numbers(name: str, text: str) -> None:
    """NaN and infinity are refused like letters are."""
    if text:
        assert len(problems(**{name: text})) == 1


def bounded() -> list[tuple[str, Any]]:
    return [(name, item) for name, item in variables() if item.metadata["minimum"] is not None]


@pytest.mark.parametrize(("name", "item"), bounded(), ids=[name for name, _ in bounded()])
def test_each_bound_holds(name: str, item: dataclasses.Field[Any]) -> None:
    """Each number takes its minimum and maximum, and refuses what lies beyond, saying the bound."""
    field = name.removeprefix("SAFELIGHT_").lower()
    low, high = item.metadata["minimum"], item.metadata["maximum"]
    step = 1 if "int" in str(item.type) else 0.01
    for edge in (low, high):
        found = read(**{field: f"{edge}"})
        assert field in {f.name for section in SECTIONS for f in dataclasses.fields(getattr(found, section))}
    for outside in (low - step, high + step):
        assert len(problems(**{field: f"{outside:.20g}"})) == 1


def test_presets_are_read_in_order() -> None:
    """Presets name their size, format and quality, and their version follows from these."""
    found = read(presets="thumb:100:webp:70, big:4000:jpeg:95,").jobs.presets
    assert found == (
        Preset(name="thumb", max_side_px=100, format="webp", quality=70),
        Preset(name="big", max_side_px=4000, format="jpeg", quality=95),
    )
    assert found[0].version == "webp-100-q70-p1"


@pytest.mark.parametrize(
    "text",
    [
        *("thumb", "thumb:100:gif:70", "thumb:0:webp:70", "thumb:10001:webp:70", "thumb:100:webp:0"),
        *("thumb:100:webp:101", "Thumb:100:webp:70", "../x:100:webp:70", "a/b:100:webp:70", ":100:webp:70"),
        *("a:1:webp:1,a:2:webp:1", "thumb:100:webp:70;x:1:webp:1"),
    ],
)
def test_other_presets_are_refused(text: str) -> None:
    """A preset that is malformed, out of bounds, unsafe in a key, or named twice is one problem."""
    assert len(problems(presets=text)) == 1


def test_hooks_are_read_and_the_bucket_of_previews_is_closed() -> None:
    """The rules stand as written; a last one keeps every door from taking previews for photos."""
    found = read(hooks="photos:exif,*", derived_bucket="previews")
    assert [str(hook) for hook in found.jobs.hooks] == ["photos:exif", "*", "previews:none"]
    assert [str(hook) for hook in read().jobs.hooks] == ["*", "derived:none"]
    assert found.jobs.processors_for("previews", "photos/a.jpg/thumb.webp") == ()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"hooks": "photos:preview:thumb+huge"}, ["'huge'", "no preset", "thumb, preview"]),
        ({"hooks": "photos:preview:thumb", "presets": "big:2000:webp:80"}, ["'thumb'", "no preset", "big"]),
        ({"hooks": "photos:exif+sharpness"}, ["'sharpness'", "no processor", "preview, exif"]),
        ({"hooks": "derived/photos/:exif"}, ["'derived'", "DERIVED_BUCKET", "never watched"]),
        ({"hooks": "mine", "derived_bucket": "mine"}, ["'mine'", "DERIVED_BUCKET"]),
        ({"hooks": "bad", "quarantine_bucket": "bad"}, ["'bad'", "QUARANTINE_BUCKET", "never watched"]),
        ({"hooks": "photos/a:exif,*,photos/a:none"}, ["'photos/a'", "2 times"]),
        ({"hooks": "photos,photos/"}, ["'photos'", "2 times"]),
        ({"hooks": "photos/*.jpg"}, ["'photos/*.jpg'", "no pattern"]),
    ],
    ids=repr,
)
def test_hooks_that_contradict_the_rest_are_problems(more: dict[str, str], words: list[str]) -> None:
    """Each names what is wrong and what there is: a typing error must not stop processing in silence."""
    (problem,) = problems(**more)
    assert problem.startswith("SAFELIGHT_HOOKS ")
    assert [word for word in words if word not in problem] == []


@pytest.mark.parametrize("text", ["Storage", "yes", "allow"])
def test_strangers_are_refused_or_left_to_the_storage(text: str) -> None:
    """Who mistypes what unsigned S3 requests meet is told so, instead of getting the other meaning."""
    (problem,) = problems(s3_anonymous=text)
    assert repr(text) in problem
    assert "refuse or storage" in problem
    assert read(s3_anonymous="storage").gateway.s3_anonymous == "storage"


def test_trailers_are_dropped_or_passed() -> None:
    """Anything else is a problem, because a storage may refuse every body of the other kind."""
    (problem,) = problems(s3_trailers="yes")
    assert "drop or pass" in problem
    assert (read().gateway.s3_trailers, read(s3_trailers="pass").gateway.s3_trailers) == ("drop", "pass")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PEM files by what they are."""
    folder, authority = tmp_path_factory.mktemp("pem"), trustme.CA()
    for name in ("one", "other"):
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    loaded = serialization.load_pem_private_key((folder / "one.key").read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (folder / "sealed.key").write_bytes(loaded.private_bytes(*pkcs8, encryption))
    (folder / "both").write_bytes((folder / "one.crt").read_bytes() + (folder / "one.key").read_bytes())
    (folder / "text").write_text("no PEM")
    return {path.name: str(path) for path in folder.iterdir()} | {"absent": str(folder / "absent")}


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("", "one.key", ["S3_TLS_KEY is set without SAFELIGHT_S3_TLS_CERT"]),
        ("one.crt", "", ["S3_TLS_CERT is set without SAFELIGHT_S3_TLS_KEY"]),
        ("absent", "one.key", ["absent cannot be read", "No such file"]),
        ("one.crt", "absent", ["absent cannot be read", "No such file"]),
        ("one.crt", "other.key", ["other.key is not that of the certificate"]),
        ("text", "one.key", ["text", "as PEM"]),
        ("one.crt", "sealed.key", ["sealed.key", "without a password"]),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told_with_the_rest(
    pem: dict[str, str], certificate: str, key: str, words: list[str]
) -> None:
    """Whoever starts the S3 door learns at once which file is wrong, beside every other problem."""
    files = {"SAFELIGHT_S3_TLS_CERT": pem.get(certificate, ""), "SAFELIGHT_S3_TLS_KEY": pem.get(key, "")}
    with pytest.raises(SettingsError) as caught:
        load(NEEDED | files | {"SAFELIGHT_LOG_FORMAT": "xml"}, opens_door=True)
    assert len(caught.value.problems) == 2
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("files", [("one.crt", "one.key"), ("both", "both")])
def test_only_the_door_looks_at_its_certificate(pem: dict[str, str], files: tuple[str, str]) -> None:
    """A good pair passes; a worker that has the settings but not the files starts as well."""
    certificate, key = files
    given = NEEDED | {"SAFELIGHT_S3_TLS_CERT": pem[certificate], "SAFELIGHT_S3_TLS_KEY": pem[key]}
    assert load(given, opens_door=True).gateway.s3_tls_cert == pem[certificate]
    assert read(s3_tls_cert="/absent", s3_tls_key="/absent").gateway.s3_tls_key == "/absent"


def test_defaults_are_shown_as_they_are_written() -> None:
    """Whoever copies a default from `safelight settings` gets the same settings."""
    shown = CliRunner().invoke(app, ["settings", "--json"])
    defaults = {row["name"]: row["default"] for row in json.loads(shown.stdout)}
    assert defaults["SAFELIGHT_HOOKS"] == "*"
    copied = {name: defaults[f"SAFELIGHT_{name.upper()}"] for name in ("hooks", "presets", "max_photo_bytes")}
    assert read(**copied) == read()


@pytest.mark.parametrize(
    "more",
    [
        {"postgres_dsn": "mysql://user:hidden-dsn@db/x"},
        {"redis_url": "http://:hidden-redis@cache"},
        {"postgres_dsn": "hidden-dsn"},
        {"redis_url": "redis://"},
    ],
    ids=repr,
)
def test_secrets_are_never_echoed(more: dict[str, str]) -> None:
    """A wrong URL that holds a password is called set, and not shown."""
    (problem,) = problems(**more)
    assert "hidden" not in problem
    assert "is set, but" in problem


def test_the_settings_secret_is_not_in_their_repr() -> None:
    """Settings that end up in a log or a traceback do not show the secret key."""
    assert "hidden-secret" not in repr(read())


@given(st.dictionaries(st.sampled_from([name for name, _ in variables()]), st.text(max_size=30), max_size=8))
def test_any_environment_is_settings_or_problems(environ: dict[str, str]) -> None:
    """Whatever the values, they are parsed or reported: nothing else is raised."""
    try:
        found: Settings | list[str] = load(NEEDED | environ)
    except SettingsError as error:
        found = error.problems
    assert found


def test_the_process_alone_needs_nothing() -> None:
    """`safelight up` can read where its data lie before any server is known."""
    assert process_settings({}).data_dir == ".safelight"
    with pytest.raises(SettingsError):
        process_settings({"SAFELIGHT_LOG_LEVEL": "loud"})


def test_variables_of_others_are_left_alone() -> None:
    """Only names that begin like ours are judged."""
    assert load(NEEDED | {"PATH": "/bin", "SAFELIGHTS": "x", "safelight_x": "y"}).process.log_format == "console"


def test_nothing_watches_the_quarantine() -> None:
    """The bucket of rejected photos has a rule of its own that watches nothing, as the bucket of previews has."""
    found = read(quarantine_bucket="rejected")
    assert [str(hook) for hook in found.jobs.hooks] == ["*", "derived:none", "rejected:none"]
    assert found.storage.closed_buckets == ("derived", "rejected")


@pytest.mark.parametrize("name", ["photos", "derived", "No Bucket"])
def test_the_quarantine_is_a_bucket_of_its_own(name: str) -> None:
    """It may be neither the default bucket nor that of previews, nor what no bucket can be called."""
    (problem,) = problems(quarantine_bucket=name)
    assert problem.startswith("SAFELIGHT_QUARANTINE_BUCKET is")


def test_the_public_endpoint_is_a_host() -> None:
    """A path would not be what the storage sees signed; without one, clients reach the storage as we do, or AWS."""
    assert read(s3_public_endpoint="https://s3.example.org/").storage.public_endpoint == "https://s3.example.org"
    assert read(s3_endpoint="http://s3:9000").storage.public_endpoint == "http://s3:9000"
    assert read(s3_region="eu-central-1").storage.public_endpoint == "https://s3.eu-central-1.amazonaws.com"
    for address in ("https://example.org/s3", "s3.example.org", "ftp://s3.example.org"):
        (problem,) = problems(s3_public_endpoint=address)
        assert problem.startswith("SAFELIGHT_S3_PUBLIC_ENDPOINT is")
