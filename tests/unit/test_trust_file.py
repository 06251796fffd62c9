"""The trust file: what it may hold, how it is changed, and who notices when."""

from __future__ import annotations

import logging
import os
import pathlib

import pytest

from kafka_jupyter.errors import BadTrustFile, TrustError
from kafka_jupyter.trust import edit
from kafka_jupyter.trust.file import TrustFile
from kafka_jupyter.trust.keys import KeyFolder, OwnKey, encoded
from kafka_jupyter.trust.listed import Role, TrustList, parse

FILE = pathlib.Path("trust.toml")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> OwnKey:
    return KeyFolder(tmp_path_factory.mktemp("keys")).make(0)


def _text(key: OwnKey, **fields: str) -> str:
    table = {"kid": f'"{key.kid}"', "public": f'"{encoded(key.public)}"', "roles": '["worker"]', "not_before": "2026-01-01T00:00:00Z"}
    return "[[key]]\n" + "".join(f"{name} = {value}\n" for name, value in (table | fields).items() if value)


def _roles(found: TrustList, key: OwnKey, time_ms: int) -> set[str]:
    return set(found.keys[key.kid].roles_at(time_ms))


JANUARY, FEBRUARY, MARCH = 1_767_225_600_000, 1_769_904_000_000, 1_772_323_200_000


def test_a_key_counts_from_its_beginning_to_its_end(key: OwnKey) -> None:
    found = parse(_text(key, not_after="2026-02-01T00:00:00Z"), FILE)
    assert [_roles(found, key, at) for at in (JANUARY - 1, JANUARY, FEBRUARY - 1, FEBRUARY)] == [set(), {"worker"}, {"worker"}, set()]


@pytest.mark.parametrize("field", ["revoked_at", "distrusted_from"])
def test_the_end_of_a_key_ends_all_that_it_was_granted(key: OwnKey, field: str) -> None:
    text = _text(key, **{field: "2026-02-01T00:00:00Z"}) + _text(key, roles='["submitter", "code"]')
    found = parse(text, FILE)
    assert _roles(found, key, FEBRUARY - 1) == {"worker", "submitter", "code"}
    assert _roles(found, key, FEBRUARY) == set()


def test_a_role_that_is_given_later_does_not_count_before(key: OwnKey) -> None:
    found = parse(_text(key) + _text(key, roles='["submitter"]', not_before="2026-02-01T00:00:00+00:00"), FILE)
    assert [_roles(found, key, at) for at in (FEBRUARY - 1, FEBRUARY)] == [{"worker"}, {"worker", "submitter"}]


def test_what_is_distrusted_has_a_name_of_its_own(key: OwnKey) -> None:
    names = [
        parse(_text(key, **fields), FILE).distrust
        for fields in ({}, {"revoked_at": "2026-02-01T00:00:00Z"}, {"distrusted_from": "2026-02-01T00:00:00Z"},
                       {"distrusted_from": "2026-02-01T00:00:01Z"})
    ]  # fmt: skip
    assert names[:2] == ["", ""]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kid": '"0123456789abcdef"'}, "the kid of this public key is"),
        ({"kid": ""}, "kid must have 16"),
        ({"public": '"AAAA"'}, "public: a public key has 32 bytes, not 3"),
        ({"public": "7"}, "public:"),
        ({"roles": '["admin"]'}, "roles must be some of submitter, worker, code"),
        ({"roles": "[]"}, "roles must be"),
        ({"roles": '"worker"'}, "roles must be"),
        ({"roles": "[1]"}, "roles must be"),
        ({"not_before": ""}, "not_before is missing"),
        ({"not_before": "2026-01-01T00:00:00"}, "not_before must be a time with its zone"),
        ({"not_before": "2026-01-01"}, "not_before must be a time"),
        ({"not_after": '"2026-01-01"'}, "not_after must be a time"),
        ({"name": '"a\\nb"'}, "name must be printable"),
        ({"rolse": '["code"]'}, "there is no field rolse"),
    ],
)
def test_what_is_wrong_in_it_is_said_with_the_key_and_the_field(key: OwnKey, fields: dict[str, str], why: str) -> None:
    with pytest.raises(BadTrustFile, match=rf"trust\.toml cannot be used: key 1: {why}"):
        parse(_text(key, **fields), FILE)


@pytest.mark.parametrize("text", ["[key", "key = 3", "[[keys]]\n", "version = 1", "[[key]]\n[other]\n"])
def test_what_is_no_trust_file_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(BadTrustFile):
        parse(text, FILE)


def test_an_edit_keeps_what_people_have_written_beside_the_keys(key: OwnKey, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trust.toml"
    file.write_text("# Ask Grace before you change this.\n" + _text(key, name='"the lab\'s box"  # under the desk'))
    edit.add(file, key.public, "again", [Role.CODE, Role.SUBMITTER], FEBRUARY)
    edit.end(file, key.kid, "revoked_at", MARCH)
    text = file.read_text()
    assert "# Ask Grace before you change this." in text
    assert "# under the desk" in text
    found = parse(text, file)
    assert _roles(found, key, MARCH - 1) == {"worker", "submitter", "code"}
    assert _roles(found, key, MARCH) == set()


def test_an_end_is_only_ever_moved_forward(key: OwnKey, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trust.toml"
    edit.add(file, key.public, "", [Role.WORKER], JANUARY)
    edit.end(file, key.kid, "revoked_at", FEBRUARY)
    edit.end(file, key.kid, "revoked_at", MARCH)
    assert parse(file.read_text(), file).keys[key.kid].end_ms == FEBRUARY


def test_other_users_may_read_the_file_whatever_the_editors_umask_is(key: OwnKey, tmp_path: pathlib.Path) -> None:
    before = os.umask(0o077)
    try:
        edit.add(tmp_path / "trust.toml", key.public, "", [Role.WORKER], JANUARY)
    finally:
        os.umask(before)
    assert (tmp_path / "trust.toml").stat().st_mode & 0o777 == 0o644


def test_an_edit_of_a_broken_file_changes_nothing(key: OwnKey, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trust.toml"
    file.write_text("[[key]]\nkid = 3\n")
    with pytest.raises(BadTrustFile):
        edit.add(file, key.public, "", [Role.WORKER], JANUARY)
    assert file.read_text() == "[[key]]\nkid = 3\n"
    with pytest.raises(TrustError, match="has no key"):
        edit.end(tmp_path / "none.toml", key.kid, "revoked_at", MARCH)


def test_a_file_that_others_may_change_is_not_read(key: OwnKey, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trust.toml"
    edit.add(file, key.public, "", [Role.WORKER], JANUARY)
    file.chmod(0o666)
    with pytest.raises(BadTrustFile, match="others may change it"):
        TrustFile(file, 0.0)


def test_a_change_is_known_when_the_time_has_come_to_look(key: OwnKey, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trust.toml"
    edit.add(file, key.public, "", [Role.WORKER], JANUARY)
    eager, patient = TrustFile(file, 0.0), TrustFile(file, 3600.0)
    assert key.kid in patient.current().keys
    edit.end(file, key.kid, "revoked_at", FEBRUARY)
    assert eager.current().keys[key.kid].end_ms == FEBRUARY
    assert patient.current().keys[key.kid].end_ms is None


@pytest.mark.parametrize("damage", ["broken", "gone", "open to all"])
def test_a_file_that_breaks_takes_no_trust_away_and_gives_none(
    key: OwnKey, tmp_path: pathlib.Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trust.toml"
    edit.add(file, key.public, "", [Role.WORKER], JANUARY)
    found = TrustFile(file, 0.0)
    if damage == "broken":
        file.write_text("[[key]]\n")
    elif damage == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text() + "\n")
        file.chmod(0o666)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert _roles(found.current(), key, FEBRUARY) == {"worker"}
    assert len(caplog.records) == 1, "said once"
    assert str(file) in caplog.text
