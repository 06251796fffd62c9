"""A store at a folder that takes all it is given and, for as long as a test says, gives nothing back."""

from __future__ import annotations

import errno
import pathlib
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Refusing(LocalFileSystem):  # type: ignore[misc]
    protocol = "refusing"
    cachable = False
    reading = False

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode == "rb" and self.reading:
            raise OSError(errno.EIO, "503 Service Unavailable", path)
        return super()._open(path, mode, **more)


def refusing_url(folder: pathlib.Path) -> str:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    return f"refusing://{folder}"
