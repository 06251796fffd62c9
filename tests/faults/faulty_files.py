"""A file system that fails like a store on the other side of a bad network: at the very edge, below fsspec.

What is written is refused (a 5xx, a full disk), cut short, or has a byte flipped, and the writer is told that all is well; what is
read fails, ends too early, or has a byte flipped. Each fault is one line in a log, so that a test can count them. It is a bad network
and not a dead one: after something was spoilt, the next accesses spoil nothing, so that who tries again comes through.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import random
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

WRITING = ("503", "full", "truncated", "flipped")
READING = ("503", "truncated", "flipped")
CALM = 6  # accesses that spoil nothing after one that did: a reading, and a write and a reading again, of two files side by side


def install(share: float, log: str) -> None:
    """From now on `file:` URLs of this process meet a fault with this probability, on each write of a file and each opening."""

    calm = _Calm()

    class FaultyFiles(LocalFileSystem):  # type: ignore[misc]
        cachable = False

        def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
            chance = random.SystemRandom()
            if "/runs/" not in path + "/" and "/incoming/" not in path:
                return super()._open(path, mode, **more)
            kinds = (READING if "r" in mode else WRITING)[: 1 if calm.passes() else None]
            if chance.random() >= share:
                return super()._open(path, mode, **more)
            kind = chance.choice(kinds)
            if kind not in ("503", "full"):
                calm.left = CALM
            _note(log, f"{mode} {kind} {path}")
            if kind == "503":
                raise OSError(errno.EIO, "503 Service Unavailable", path)
            if kind == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if "r" in mode:
                return _spoilt_copy(path, kind)
            return _Spoiler(super()._open(path, mode, **more), path, kind)

    fsspec.register_implementation("file", FaultyFiles, clobber=True)
    fsspec.register_implementation("local", FaultyFiles, clobber=True)


@dataclasses.dataclass
class _Calm:
    left: int = 0

    def passes(self) -> bool:
        before, self.left = self.left, max(0, self.left - 1)
        return before > 0


def spoil(path: str, kind: str) -> None:
    """Not always at the same place: two flips of one bit would be none."""
    file = pathlib.Path(path)
    data = bytearray(file.read_bytes())
    if kind == "truncated":
        data = data[: len(data) // 2]
    elif data:
        data[random.SystemRandom().randrange(len(data))] ^= 1 << random.SystemRandom().randrange(8)
    file.write_bytes(data)


def _spoilt_copy(path: str, kind: str) -> Any:
    copy = pathlib.Path(f"{path}.{os.getpid()}.spoilt")
    copy.write_bytes(pathlib.Path(path).read_bytes())
    spoil(str(copy), kind)
    opened = copy.open("rb")
    copy.unlink()
    return opened


def _note(log: str, line: str) -> None:
    with open(log, "a") as file:
        file.write(line + "\n")


class _Spoiler:
    """A file that is spoilt when it is closed."""

    def __init__(self, file: Any, path: str, kind: str) -> None:
        self._file, self._path, self._kind = file, path, kind
        self._spoilt = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._spoilt:  # a second flip would heal it
            self._file.close()
            spoil(self._path, self._kind)
        self._spoilt = True
