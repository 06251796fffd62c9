"""A person's or a worker's own keys: Ed25519, one PKCS #8 file each (0600) in one folder (0700).

The name of a file says from when its key is to be used: `<UTC time>-<kid>.pem`. So the order of the names is the order of the keys, and a
rotation is a new file.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import os
import pathlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kafka_jupyter.errors import BadKey, TrustError

PUBLIC_BYTES = 32
_FILE = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{16})\.pem\Z")
_TIME = "%Y%m%dT%H%M%SZ"


def kid_of(public: bytes) -> str:
    """The short name of a key: 16 hexadecimal digits of the SHA-256 of its 32 public bytes."""
    return fingerprint(public)[:16]


def fingerprint(public: bytes) -> str:
    """The whole of it, to be compared by people."""
    return hashlib.sha256(public).hexdigest()


@dataclasses.dataclass(frozen=True)
class OwnKey:
    """`from_ms`: it is to be used from then on (milliseconds since 1970)."""

    private: Ed25519PrivateKey = dataclasses.field(repr=False)
    from_ms: int
    file: pathlib.Path

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def kid(self) -> str:
        return kid_of(self.public)


class KeyFolder:
    """Cheap to make; nothing is read or written before it is asked for."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def files(self) -> list[pathlib.Path]:
        """Those of keys, in the order in which they are to be used."""
        try:
            return sorted(file for file in self.folder.iterdir() if _FILE.match(file.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise TrustError(detail=str(error)) from error

    def all(self) -> list[OwnKey]:
        """In the order in which they are to be used. Raises BadKey for a file that others may read, or that is no key."""
        return [_read(file) for file in self.files()]

    def make(self, from_ms: int) -> OwnKey:
        """A new key, written to the disk. Raises TrustError."""
        private = Ed25519PrivateKey.generate()
        when = datetime.datetime.fromtimestamp(from_ms // 1000, datetime.UTC).strftime(_TIME)
        file = self.folder / f"{when}-{kid_of(private.public_key().public_bytes_raw())}.pem"
        text = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(file, text)
        except OSError as error:
            raise TrustError(detail=f"no key can be written: {error}") from error
        return _read(file)


def write_whole(file: pathlib.Path, data: bytes, mode: int = 0o600) -> None:
    """Whole or not at all, also when the power fails; never readable by more than `mode` says. Raises OSError."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as out:
        out.write(data)
        os.fchmod(out.fileno(), mode)  # whatever the umask takes away
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)


def public_of(text: str) -> bytes:
    """The 32 bytes that `encoded` wrote. Raises ValueError."""
    public = base64.b64decode(text, validate=True)
    if len(public) != PUBLIC_BYTES:
        raise ValueError(f"a public key has {PUBLIC_BYTES} bytes, not {len(public)}")
    Ed25519PublicKey.from_public_bytes(public)
    return public


def encoded(public: bytes) -> str:
    return base64.b64encode(public).decode()


def _read(file: pathlib.Path) -> OwnKey:
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            text = opened.read(1 << 16)
    except OSError as error:
        raise BadKey(file=file, why=str(error)) from error
    if status.st_mode & 0o077 or status.st_uid not in (os.getuid(), 0):
        raise BadKey(file=file, why=f"others may read or change it. If it is yours and nobody had it: chmod 600 {file}")
    try:
        private = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise BadKey(file=file, why=f"it is no unencrypted private key in PEM ({error})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise BadKey(file=file, why="it is not an Ed25519 key")
    named = _FILE.match(file.name)
    if named is None or named[2] != kid_of(private.public_key().public_bytes_raw()):
        raise BadKey(file=file, why="its name is that of another key")
    since = datetime.datetime.strptime(named[1], _TIME).replace(tzinfo=datetime.UTC)
    return OwnKey(private, int(since.timestamp() * 1000), file)
