"""Which of our keys signs, and when another one takes its place."""

from __future__ import annotations

import pathlib
import time

import pytest

from kafka_jupyter.errors import NotTrusted, TrustError
from kafka_jupyter.protocol import signing
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import keeping
from kafka_jupyter.trust.gate import Gate
from kafka_jupyter.trust.keys import KeyFolder, OwnKey
from kafka_jupyter.trust.listed import Role

AUD = "cluster/topic"


@pytest.fixture
def settings(tmp_path: pathlib.Path) -> Settings:
    return Settings(key_dir=tmp_path / "keys", trust_file=tmp_path / "trust.toml", trust_reload_s=0.0, clock_skew_s=0.0, owner="ada@test")


def _now_ms() -> int:
    return int(time.time() * 1000)


def _trusted(settings: Settings, key: OwnKey, *roles: Role) -> None:
    keeping.trust(settings, keeping.Exported(key.public, "ada"), roles or list(Role), _now_ms(), at_once=True)


def _signed_by(settings: Settings, nonce: str = "", gate: Gate | None = None) -> str:
    headers = (gate or Gate(settings)).sign("task", AUD, b"k", b"v", nonce)
    envelope = signing.open_envelope(headers, b"k", b"v")
    return envelope.statement.kid if envelope else ""


def test_without_a_key_nothing_is_signed(settings: Settings) -> None:
    assert _signed_by(settings) == ""


def test_without_a_trust_file_the_newest_key_signs_whose_time_has_come(settings: Settings) -> None:
    folder, now_ms = KeyFolder(settings.key_dir), _now_ms()
    folder.make(now_ms - 9_000_000)
    current = folder.make(now_ms - 5_000)
    folder.make(now_ms + 9_000_000)
    assert _signed_by(settings) == current.kid


def test_a_key_that_the_trust_file_does_not_list_does_not_sign_where_another_is_listed(settings: Settings) -> None:
    folder = KeyFolder(settings.key_dir)
    listed = folder.make(_now_ms() - 9_000_000)
    folder.make(_now_ms() - 5_000)
    _trusted(settings, listed)
    assert _signed_by(settings) == listed.kid


def test_a_rotation_changes_the_key_when_everybody_knows_it(settings: Settings) -> None:
    old = KeyFolder(settings.key_dir).make(_now_ms() - 9_000_000)
    _trusted(settings, old, Role.WORKER)
    slow = settings.replace(trust_reload_s=3600.0)
    turned = keeping.rotate(slow, "ada", _now_ms(), 0, 30)
    assert turned.until_ms is not None
    assert _signed_by(slow) == old.kid, "in two hours"
    known = keeping.trusted(settings)[turned.new.kid]
    assert known.roles_at(turned.new.from_ms + 1000) == {Role.WORKER}
    assert known.roles_at(turned.new.from_ms - 1000) == frozenset()
    assert keeping.trusted(settings)[old.kid].roles_at(turned.until_ms - 1000) == {Role.WORKER}
    assert keeping.trusted(settings)[old.kid].roles_at(turned.until_ms + 1000) == frozenset()


def test_a_rotation_takes_effect_in_a_process_that_runs(settings: Settings) -> None:
    old = KeyFolder(settings.key_dir).make(_now_ms() - 9_000_000)
    _trusted(settings, old)
    settings = settings.replace(delivery_timeout_s=0.0)
    gate = Gate(settings)
    assert _signed_by(settings, gate=gate) == old.kid
    turned = keeping.rotate(settings, "ada", _now_ms() - 2000, 0, 30)
    assert _signed_by(settings, gate=gate) == turned.new.kid


def test_an_attempt_goes_on_under_the_key_of_its_claim(settings: Settings) -> None:
    old = KeyFolder(settings.key_dir).make(_now_ms() - 9_000_000)
    _trusted(settings, old)
    settings = settings.replace(delivery_timeout_s=0.0)
    gate = Gate(settings)
    gate.signer.bind("nonce-1", old.kid)
    turned = keeping.rotate(settings, "ada", _now_ms() - 2000, 0, 30)
    assert _signed_by(settings, "nonce-1", gate) == old.kid
    assert _signed_by(settings, "nonce-2", gate) == turned.new.kid


def test_a_rotation_without_a_trust_file_waits_as_long_as_it_is_told(settings: Settings) -> None:
    old = KeyFolder(settings.key_dir).make(_now_ms() - 9_000_000)
    turned = keeping.rotate(settings, "ada", _now_ms(), 3600, 30)
    assert turned.until_ms is None
    assert _signed_by(settings) == old.kid
    assert turned.new.from_ms > _now_ms() + 3_500_000


def test_there_is_nothing_to_rotate_without_a_key_or_with_one_that_is_over(settings: Settings) -> None:
    with pytest.raises(TrustError, match="keys init"):
        keeping.rotate(settings, "ada", _now_ms(), 0, 30)
    key = KeyFolder(settings.key_dir).make(_now_ms() - 9_000_000)
    _trusted(settings, key)
    keeping.revoke(settings, key.kid, _now_ms() - 5000)
    with pytest.raises(TrustError, match="not trusted any more"):
        keeping.rotate(settings, "ada", _now_ms(), 0, 30)
    assert len(KeyFolder(settings.key_dir).all()) == 1


def test_whoever_would_not_be_believed_is_told_before_anything_is_sent(settings: Settings) -> None:
    Gate(settings).check_own("task", "kafka:9092")  # no trust file, no policy
    stranger = KeyFolder(settings.key_dir.parent / "other").make(0)
    _trusted(settings, stranger)
    with pytest.raises(NotTrusted, match=r"kafka:9092 .*you have no key.*keys init.*keys trust FILE --role submitter"):
        Gate(settings).check_own("task", "kafka:9092")
    key = KeyFolder(settings.key_dir).make(0)
    with pytest.raises(NotTrusted, match=f"your key {key.kid} is not trusted as submitter"):
        Gate(settings).check_own("task", "kafka:9092")
    _trusted(settings, key, Role.WORKER)
    with pytest.raises(NotTrusted, match="is not trusted as submitter"):
        Gate(settings).check_own("cancel", "kafka:9092")
    Gate(settings).check_own("claimed", "kafka:9092")
    Gate(settings.replace(trust_policy="warn")).check_own("task", "kafka:9092")
    keeping.trust(settings.replace(trust_reload_s=60.0), keeping.Exported(key.public, "ada"), [Role.SUBMITTER], _now_ms())
    with pytest.raises(NotTrusted, match=r"not trusted as submitter before 20..-..-.. ..:..:.*Try again then"):
        Gate(settings).check_own("task", "kafka:9092")


def test_a_policy_is_require_wherever_there_is_a_trust_file(settings: Settings) -> None:
    assert Gate(settings).policy == "off"
    _trusted(settings, KeyFolder(settings.key_dir).make(0))
    assert Gate(settings).policy == "require"
    assert Gate(settings.replace(trust_policy="off")).policy == "off"


def test_warn_reads_all_and_counts_it(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    _trusted(settings, KeyFolder(settings.key_dir).make(_now_ms()))
    gate = Gate(settings.replace(trust_policy="warn"))
    good = gate.origin(gate.sign("task", AUD, b"k", b"v"), b"k", b"v", AUD, _now_ms())
    assert (good.proved, gate.let_through) == (True, 0)
    bad = gate.origin(gate.sign("task", AUD, b"k", b"v"), b"k", b"other", AUD, _now_ms())
    assert (bad.proved, bad.code, bad.kid, gate.let_through) == (False, False, good.kid, 1)
    assert gate.origin((), b"k", b"v", AUD, _now_ms()).kid == ""
    assert "read all the same" in caplog.text
    assert "does not fit" in caplog.text


def test_off_looks_at_nothing_and_remembers_whose_it_says_it_is(settings: Settings) -> None:
    key = KeyFolder(settings.key_dir).make(_now_ms())
    gate = Gate(settings)
    found = gate.origin(gate.sign("task", AUD, b"k", b"v"), b"k", b"other", AUD, 0)
    assert (found.kid, found.proved, found.code) == (key.kid, False, False)
    assert gate.origin((("kj-statement", b"junk"), ("kj-signature", b"")), b"k", b"v", AUD, 0).kid == ""
