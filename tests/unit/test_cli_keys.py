"""`kafka-jupyter keys`, as a person types it."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from kafka_jupyter.errors import BadKey, TrustError
from kafka_jupyter.settings import Settings
from tests.support.cli import Said, cli, documented


class Person:
    """With a config folder of their own and the local Kafka's trust file."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.settings = Settings(data_dir=folder / "data", cache_dir=folder / "cache", owner=f"{folder.name}@test")

    def keys(self, *words: str) -> Said:
        self._monkeypatch.setenv("KAFKA_JUPYTER_KEY_DIR", str(self.folder / "keys"))
        return cli("keys", *words, settings=self.settings)

    def json(self, *words: str) -> Any:
        return json.loads(self.keys(*words, "--json").out)

    def exported(self) -> str:
        file = self.folder / "public.toml"
        file.write_text(self.keys("export").out)
        return str(file)


@pytest.fixture
def ada(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(tmp_path / "ada", monkeypatch)


def test_a_key_is_made_once(ada: Person) -> None:
    first, second = ada.json("init"), ada.json("init")
    assert (first["made"], second["made"]) == (True, False)
    assert first["kid"] == second["kid"]
    assert pathlib.Path(first["file"]).stat().st_mode & 0o777 == 0o600
    assert set(first) == documented("keys init")


def test_a_key_goes_to_whoever_keeps_the_trust_file_and_is_trusted_there(
    ada: Person, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kid = ada.json("init")["kid"]
    grace = Person(tmp_path / "grace", monkeypatch)
    assert set(ada.json("export")) == documented("keys export")
    said = grace.keys("trust", ada.exported(), "--role", "submitter", "--role", "code", "--not-after", "2099-12-31")
    assert said.code == 0
    assert f"{kid} (ada@test) is trusted as submitter and code from now on" in said.out
    assert "its fingerprint: " + kid in said.out
    listed = grace.json("list")
    assert set(listed) == documented("keys list")
    (found,) = listed["trusted"]
    assert (found["kid"], found["name"], found["roles"], found["state"]) == (kid, "ada@test", ["submitter", "code"], "trusted")
    assert listed["policy"] == "require"
    assert listed["trust_file"] == str(grace.settings.data_dir / "kafka" / "trust.toml")


def test_a_second_key_counts_only_when_everybody_has_read_of_it(
    ada: Person, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada.keys("init")
    grace = Person(tmp_path / "grace", monkeypatch)
    grace.keys("init")
    assert grace.keys("trust", grace.exported(), "--role", "worker").code == 0
    assert "when every process has read it" in grace.keys("trust", ada.exported(), "--role", "submitter").out
    states = {key["name"]: (key["roles"], key["state"].split()[0]) for key in grace.json("list")["trusted"]}
    assert states == {"grace@test": (["worker"], "trusted"), "ada@test": ([], "from")}


def test_a_key_is_revoked_or_forgotten(ada: Person) -> None:
    kid = ada.json("init")["kid"]
    ada.keys("trust", ada.exported(), "--role", "submitter")
    revoked = ada.json("revoke", kid)
    assert set(revoked) == documented("keys revoke")
    assert "what it has signed by then stays" in ada.keys("revoke", kid).out
    assert ada.json("list")["trusted"][0]["state"].startswith("revoked from")
    assert "every process reads the log once more" in ada.keys("revoke", kid, "--distrust-from", "2026-11-01").out
    assert ada.json("list")["trusted"][0]["state"].startswith("distrusted from 2026-11-01")
    assert isinstance(ada.keys("revoke", "0123456789abcdef").error, TrustError)


def test_a_key_is_rotated(ada: Person) -> None:
    first = ada.json("init")["kid"]
    alone = ada.json("rotate")
    assert set(alone) == documented("keys rotate")
    assert (alone["old"], alone["old_until_ms"]) == (first, None)
    assert "has to be trusted where the old one is" in ada.keys("rotate", "--in-hours", "2").out


def test_a_trusted_key_is_rotated_with_its_roles(ada: Person) -> None:
    first = ada.json("init")["kid"]
    ada.keys("trust", ada.exported(), "--role", "worker")
    turned = ada.json("rotate", "--keep-old-days", "2")
    assert turned["old"] == first
    assert turned["old_until_ms"] - turned["from_ms"] == 2 * 86_400_000
    assert [key["kid"] for key in ada.json("list")["trusted"]] == [first, turned["new"]]


def test_what_cannot_be_done_is_said_in_a_line(ada: Person) -> None:
    assert "keys init" in str(ada.keys("export").error)
    ada.keys("init")
    assert "no key 0123456789abcdef" in str(ada.keys("export", "0123456789abcdef").error)
    assert isinstance(ada.keys("trust", "/nowhere.toml", "--role", "worker").error, TrustError)
    assert isinstance(ada.keys("trust", __file__, "--role", "worker").error, BadKey)
    said = ada.keys("trust", ada.exported(), "--role", "admin")
    assert (said.code, "there is no role 'admin'" in said.out) == (2, True)
    said = ada.keys("trust", ada.exported(), "--role", "worker", "--not-after", "tomorrow")
    assert (said.code, "write a time such as" in said.out) == (2, True)


def test_a_profile_with_a_kafka_of_its_own_has_the_trust_file_of_the_settings(ada: Person, tmp_path: pathlib.Path) -> None:
    ada.settings = ada.settings.replace(bootstrap_servers="kafka.example.org:9092")
    ada.keys("init")
    file = tmp_path / "team.toml"
    assert ada.keys("trust", ada.exported(), "--role", "worker", "--trust-file", str(file)).code == 0
    assert file.exists()
    assert ada.json("list", "--trust-file", str(file))["trust_file"] == str(file)
