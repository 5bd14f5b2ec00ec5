"""Hooks: the rules of SAFELIGHT_HOOKS, which of them decides about a key, and what follows from it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.hooks import DEFAULT_HOOKS, Hook, find_hook, parse_hooks
from processors.settings import JobSettings


def read(text: str) -> JobSettings:
    return JobSettings(redis_url="redis://unused", hooks=parse_hooks(text))


def names(settings: JobSettings, bucket: str, key: str, *, asked_for: bool = False) -> list[str]:
    return [item.name for item in settings.processors_for(bucket, key, asked_for=asked_for)]


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("*", Hook(bucket=None, prefix="", processors=None, presets=None)),
        ("photos", Hook(bucket="photos", prefix="", processors=None, presets=None)),
        ("photos/", Hook(bucket="photos", prefix="", processors=None, presets=None)),
        ("scratch:none", Hook(bucket="scratch", prefix="", processors=(), presets=None)),
        ("archive/raw/:exif", Hook(bucket="archive", prefix="raw/", processors=("exif",), presets=None)),
        ("*/2024-", Hook(bucket=None, prefix="2024-", processors=None, presets=None)),
        ("photos/ü b/:exif", Hook(bucket="photos", prefix="ü b/", processors=("exif",), presets=None)),
        (
            "photos:preview+exif:thumb+large",
            Hook(bucket="photos", prefix="", processors=("preview", "exif"), presets=("thumb", "large")),
        ),
    ],
)
def test_a_rule_is_read_as_it_is_documented(text: str, hook: Hook) -> None:
    """Bucket, prefix, processors and presets come out of the grammar; what is left out is open."""
    assert parse_hooks(text) == (hook,)


def test_rules_are_separated_by_commas_and_keep_their_order() -> None:
    """Blanks around rules and empty rules are passed over, as in lists of presets."""
    hooks = parse_hooks(" photos:exif , scratch:none,\n*, ")
    assert [str(hook) for hook in hooks] == ["photos:exif", "scratch:none", "*"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("photos/*.jpg", "no pattern"),
        ("ph*", "lower-case letters"),
        ("Photos", "lower-case letters"),
        ("/raw/", "lower-case letters"),
        (":exif", "lower-case letters"),
        ("photos//raw", "begin or end with a slash"),
        ("photos/../raw", "/../"),
        ("photos/a\\b", "backslash"),
        ("photos:", "processors are names"),
        ("photos:exif+", "processors are names"),
        ("photos:exif+exif", "each of them once"),
        ("photos:none+exif+none", "each of them once"),
        ("photos:exif:", "presets are names"),
        ("photos:exif:thumb:more", "write bucket/prefix"),
        ("photos:none:thumb", "write bucket/prefix"),
        (",", "no rule"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_reason(text: str, why: str) -> None:
    """The rule at fault is quoted, and the sentence says what is wrong with it."""
    with pytest.raises(ValueError, match="no rule") as caught:
        parse_hooks(f"*, {text}" if text != "," else text)
    assert why in str(caught.value)
    assert text == "," or repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("bucket", "key", "place"),
    [
        ("photos", "a.jpg", "photos"),
        ("photos", "raw/a.dng", "photos/raw/"),
        ("photos", "raw/2024/a.dng", "photos/raw/2024"),
        ("photos", "raw", "photos"),
        ("photos", "a/raw/b.dng", "photos"),
        ("photos", "web/deep/er/a.jpg", "photos"),
        ("other", "web/deep/er/a.jpg", "*/web/deep/"),
        ("other", "web/a.jpg", "*"),
        ("photos2", "raw/a.dng", "*"),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_longest_match_decides_and_a_named_bucket_beats_any(
    bucket: str, key: str, place: str, backwards: bool
) -> None:
    """A longer prefix beats a shorter one, a bucket's name beats any prefix of *, and the order of rules is nothing."""
    hooks = parse_hooks("*,*/web/deep/,photos,photos/raw/,photos/raw/2024")
    found = find_hook(hooks[::-1] if backwards else hooks, bucket, key)
    assert found is not None
    assert found.place == place


def test_where_no_rule_fits_nobody_watches() -> None:
    """Without a rule for any bucket, the others pass through untouched."""
    settings = read("photos/raw/")
    assert find_hook(settings.hooks, "photos", "a.jpg") is None
    assert names(settings, "photos", "a.jpg") == []
    assert names(settings, "photos", "raw/a.jpg") == ["preview", "exif"]


def test_the_default_watches_everything_with_everything() -> None:
    """All processors and all presets, in any bucket."""
    settings = JobSettings(redis_url="redis://unused")
    assert settings.hooks == DEFAULT_HOOKS == parse_hooks("*")
    assert names(settings, "any", "a.jpg") == ["preview", "exif"]
    assert settings.options_for("any", "a.jpg") == settings.options
    assert settings.previews_for("any", "a.jpg") == settings.presets


def test_processors_and_presets_are_narrowed_in_the_order_of_the_settings() -> None:
    """A rule chooses; in which order things are made is not its to say. Limits stay as they are."""
    settings = read("photos:exif+preview:preview+thumb,small:preview:thumb,facts:exif")
    assert names(settings, "photos", "a.jpg") == ["preview", "exif"]
    assert [item.name for item in settings.options_for("photos", "a.jpg").presets] == ["thumb", "preview"]
    assert [item.name for item in settings.previews_for("small", "a.jpg")] == ["thumb"]
    assert settings.options_for("small", "a.jpg").limits == settings.options.limits
    assert settings.previews_for("facts", "a.jpg") == ()


@pytest.mark.parametrize("text", ["*:none", "other", "photos/raw/:exif"])
def test_what_was_asked_for_where_nobody_watches_gets_everything(text: str) -> None:
    """A photo that was sent as a photo has all processors and presets, though the place is not watched."""
    settings = read(text)
    assert names(settings, "photos", "a.jpg") == []
    assert names(settings, "photos", "a.jpg", asked_for=True) == ["preview", "exif"]
    assert settings.options_for("photos", "a.jpg") == settings.options
    assert settings.previews_for("photos", "a.jpg") == settings.presets


def test_what_was_asked_for_where_somebody_watches_gets_what_the_hook_says() -> None:
    """Being explicit about the photo changes nothing about the place."""
    assert names(read("photos:exif"), "photos", "a.jpg", asked_for=True) == ["exif"]


NAMES = st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True), min_size=1, max_size=3, unique=True)
HOOKS = st.builds(
    Hook,
    bucket=st.none() | st.from_regex(r"[a-z0-9]{3,9}", fullmatch=True),
    prefix=st.from_regex(r"([a-zü0-9 ]*[a-zü0-9]/?){0,3}", fullmatch=True),
    processors=st.none() | NAMES.filter(lambda found: found != ["none"]).map(tuple),
    presets=st.none(),
) | st.builds(
    Hook, bucket=st.just("photos"), prefix=st.just("raw/"), processors=NAMES.map(tuple), presets=NAMES.map(tuple)
)


@given(st.lists(HOOKS, min_size=1, max_size=5))
def test_a_rule_that_is_written_reads_back(hooks: list[Hook]) -> None:
    """What `safelight settings` prints is what the setting takes."""
    assert parse_hooks(",".join(str(hook) for hook in hooks)) == tuple(hooks)


@given(st.text(max_size=40))
def test_any_text_is_rules_or_a_reason(text: str) -> None:
    """Whatever the text, nothing but ValueError is raised, and what was read reads back."""
    try:
        hooks = parse_hooks(text)
    except ValueError:
        return
    assert hooks
    assert parse_hooks(",".join(str(hook) for hook in hooks)) == hooks


def test_recording_needs_no_s3_client() -> None:
    """A door's process that never speaks to S3 through aioboto3 does not pay for its memory."""
    code = "import sys, gateway.ingest; sys.exit('aioboto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", code), check=False).returncode == 0
