"""Own keys on the disk, and their public halves on the way to whoever keeps a trust file."""

from __future__ import annotations

import os
import pathlib
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kafka_jupyter.errors import BadKey, TrustError
from kafka_jupyter.trust.keeping import Exported, exported
from kafka_jupyter.trust.keys import KeyFolder, kid_of, write_whole

HOUR_MS = 3_600_000


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> KeyFolder:
    return KeyFolder(tmp_path / "config" / "keys")


def test_a_new_key_is_its_owners_alone(folder: KeyFolder) -> None:
    made = folder.make(5 * HOUR_MS)
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700
    assert (made.from_ms, made.kid) == (5 * HOUR_MS, kid_of(made.public))
    assert os.listdir(folder.folder) == [f"19700101T050000Z-{made.kid}.pem"]


def test_keys_come_in_the_order_in_which_they_are_to_be_used(folder: KeyFolder) -> None:
    made = [folder.make(hour * HOUR_MS) for hour in (7, 3, 5)]
    assert [key.kid for key in folder.all()] == [made[1].kid, made[2].kid, made[0].kid]


def test_other_files_beside_them_are_nobodys_business(folder: KeyFolder) -> None:
    key = folder.make(0)
    for name in ("README", ".DS_Store", "id_rsa.pem", f"{key.file.name}.bak"):
        (folder.folder / name).write_text("what?")
    assert [each.kid for each in folder.all()] == [key.kid]


def test_no_folder_is_no_key(folder: KeyFolder) -> None:
    assert folder.all() == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_or_write_is_not_used(folder: KeyFolder, mode: int) -> None:
    key = folder.make(0)
    key.file.chmod(mode)
    with pytest.raises(BadKey, match="chmod 600"):
        folder.all()


def test_a_key_that_is_none_says_what_it_is(folder: KeyFolder) -> None:
    key = folder.make(0)
    pem, pkcs8, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    locked = Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret"))
    other = Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, none)
    elliptic = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, none)
    for text, why in ((b"", "no unencrypted private key"), (b"-----BEGIN", "no unencrypted"), (locked, "no unencrypted"),
                      (elliptic, "not an Ed25519 key"), (other, "name is that of another key")):  # fmt: skip
        write_whole(key.file, text)
        with pytest.raises(BadKey, match=why) as bad:
            folder.all()
        assert str(key.file) in str(bad.value)


def test_a_key_never_shows_its_secret(folder: KeyFolder) -> None:
    key = folder.make(0)
    secret = key.private.private_bytes_raw()
    assert secret.hex() not in repr(key)
    assert "private" not in repr(key)


def test_a_folder_that_cannot_be_written_is_a_named_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(TrustError, match="no key can be written"):
        KeyFolder(tmp_path / "keys").make(0)


def test_a_link_in_the_place_of_a_new_key_is_not_followed(folder: KeyFolder, tmp_path: pathlib.Path) -> None:
    folder.folder.mkdir(parents=True)
    target = tmp_path / "elsewhere"
    link = folder.folder / f".x.pem.{os.getpid()}"
    link.symlink_to(target)
    write_whole(folder.folder / "x.pem", b"secret")
    assert not target.exists()
    assert (folder.folder / "x.pem").read_bytes() == b"secret"


def test_what_is_exported_is_read_again_and_holds_no_secret(folder: KeyFolder) -> None:
    key = folder.make(0)
    text = Exported(key.public, 'ada "the first" @ lab\n[[key]]').text()
    found = exported(text, "ada.toml")
    assert (found.public, found.kid) == (key.public, key.kid)
    assert "\n" not in found.name
    assert key.private.private_bytes_raw().hex() not in text


@pytest.mark.parametrize(
    "text",
    ["", "kid = 3", "not toml at all [", 'kid = "0123456789abcdef"\npublic = "AAAA"', 'kid = "0123456789abcdef"\npublic = 7',
     'public = "!!!!"', "x" * 100_000, 'kid = "0123456789abcdef"\npublic = "hKiY2MwTjB172lz3hVjX7Fr+XJodDb1THnhimKvENB0="'],
)  # fmt: skip
def test_what_was_not_exported_is_a_named_error(text: str) -> None:
    with pytest.raises(BadKey, match=r"ada\.toml cannot be used as a key"):
        exported(text, "ada.toml")
