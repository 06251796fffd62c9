"""Where settings come from, and what is said of those that cannot be used."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from kafka_jupyter.errors import SettingsError
from kafka_jupyter.settings import Settings, env_name

PROFILES = """
[default]
bootstrap_servers = "kafka.example.org:9093"
topic_prefix = "team1."
lease_ttl_s = 12
[default.kafka]
"security.protocol" = "SASL_SSL"
"enable.ssl.certificate.verification" = true
"socket.timeout.ms" = 3000
[other]
bootstrap_servers = "other.example.org:9092"
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "profiles.toml"
    path.write_text(PROFILES)
    return path


def test_a_profile_is_read_and_what_librdkafka_knows_is_passed_through_as_text(file: pathlib.Path) -> None:
    found = Settings.from_env({}, file)
    assert (found.bootstrap_servers, found.topic_prefix, found.lease_ttl_s) == ("kafka.example.org:9093", "team1.", 12.0)
    assert found.kafka == {
        "security.protocol": "SASL_SSL",
        "enable.ssl.certificate.verification": "true",
        "socket.timeout.ms": "3000",
    }


def test_the_environment_beats_the_profile_and_an_argument_beats_both(file: pathlib.Path) -> None:
    environ = {"KAFKA_JUPYTER_TOPIC_PREFIX": "env.", "KAFKA_JUPYTER_LEASE_TTL_S": "7.5"}
    found = Settings.from_env(environ, file, lease_ttl_s=3)
    assert (found.bootstrap_servers, found.topic_prefix, found.lease_ttl_s) == ("kafka.example.org:9093", "env.", 3.0)


@pytest.mark.parametrize(("environ", "overrides"), [({"KAFKA_JUPYTER_PROFILE": "other"}, {}), ({}, {"profile": "other"})])
def test_another_profile_is_chosen_by_its_name(file: pathlib.Path, environ: dict[str, str], overrides: dict[str, str]) -> None:
    found = Settings.from_env(environ, file, **overrides)
    assert (found.bootstrap_servers, found.topic_prefix) == ("other.example.org:9092", "")


def test_without_a_profile_file_the_defaults_hold(tmp_path: pathlib.Path) -> None:
    found = Settings.from_env({}, tmp_path / "none.toml")
    assert (found.bootstrap_servers, found.partitions, found.auto_start) == ("", 3, True)


@pytest.mark.parametrize(("text", "size"), [("4GiB", 4 << 30), ("500 MiB", 500 << 20), ("0.5k", 512), ("77", 77)])
def test_sizes_may_be_written_with_their_unit(tmp_path: pathlib.Path, text: str, size: int) -> None:
    assert Settings.from_env({"KAFKA_JUPYTER_CACHE_LIMIT": text}, tmp_path / "none.toml").cache_limit == size


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Settings) if f.name.endswith(("_s", "_days", "_limit"))])
@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_no_duration_or_size_is_negative_endless_or_no_number(tmp_path: pathlib.Path, name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({env_name(name): text}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[default\n", "the profile file"),
        ("default = 3\n", "a profile is a table"),
        ("[default]\nbootstrap = 'x'\n", "there is no such setting"),
        ("[default]\npartitions = 'many'\n", "write a size|partitions"),
        ("[default]\non_interrupt = 'explode'\n", "must be detach, stop or cancel"),
        ("[default]\ntopic_prefix = 'a/b'\n", "letters, digits"),
        ("[default]\nauto_start = 'maybe'\n", "write true or false"),
    ],
)
def test_a_bad_profile_is_refused_with_what_is_wrong(tmp_path: pathlib.Path, text: str, says: str) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        Settings.from_env({}, file)


def test_a_profile_that_is_not_there_is_named_with_those_that_are(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(SettingsError, match="the file knows default, other"):
        Settings.from_env({}, file, profile="third")
    with pytest.raises(SettingsError, match="there is no profile file"):
        Settings.from_env({}, tmp_path / "none.toml", profile="third")
