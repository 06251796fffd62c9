"""Notebook files: read whole, replaced whole or not at all, and as trusted afterwards as before."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import stat
import tempfile

from kafka_jupyter.cli import say
from kafka_jupyter.errors import NotebookError

SIZE_LIMIT = 512 << 20  # bytes: read into memory, some times over


@dataclasses.dataclass(frozen=True)
class NotebookFile:
    """A file as it was when it was read. `path`: what a symlink leads to; `name`: as the person calls it."""

    name: str
    path: pathlib.Path
    raw: bytes

    @classmethod
    def read(cls, name: str) -> NotebookFile:
        """Raises NotebookError."""
        try:
            path = pathlib.Path(name).resolve(strict=True)
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
                raise _left(name, "it is no file. Name the notebooks one by one")
            if found.st_size > SIZE_LIMIT:
                large, limit = say.size(found.st_size), say.size(SIZE_LIMIT)
                raise _left(name, f"it has {large}, more than {limit}. Clear its largest outputs in JupyterLab first")
            return cls(name, path, path.read_bytes())
        except OSError as error:
            raise _left(name, f"it cannot be read ({error.strerror})") from error
        except RuntimeError as error:  # what Python 3.11 says of a symlink that leads to itself
            raise _left(name, f"it cannot be read ({error})") from error

    @property
    def text(self) -> str:
        """Raises NotebookError."""
        try:
            return self.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _left(self.name, f"it is not UTF-8, as notebooks are (byte {error.start})") from error

    def replace(self, text: str) -> None:
        """Writes a file beside it and puts that in its place, so that nobody ever sees half a notebook; its mode stays, and its owner where
        we may give it away. Raises NotebookError, also if it is not as it was read any more: somebody has saved it, and their work counts.
        (Who saves it between that look and the replacement is overwritten: there is no lock that JupyterLab would heed.)"""
        try:
            before = self.path.stat()
            if not before.st_mode & 0o222 or not os.access(self.path, os.W_OK):  # to replace it would be allowed all the same
                raise _left(self.name, "it is read-only. `chmod u+w` makes it writable")
            descriptor, beside = tempfile.mkstemp(prefix=".kafka-jupyter-", suffix=".tmp", dir=self.path.parent)
            try:
                with open(descriptor, "wb") as file:
                    file.write(text.encode("utf-8"))
                    file.flush()
                    for user, group in ((-1, before.st_gid), (before.st_uid, -1)):
                        with contextlib.suppress(PermissionError):  # another person's file, in a folder that we share
                            os.chown(beside, user, group)
                    shutil.copystat(self.path, beside)
                    os.utime(beside)  # `copystat` took the old time, and by its time JupyterLab sees that a file has changed
                    os.fsync(file.fileno())
                if self.path.read_bytes() != self.raw:
                    raise _left(self.name, "somebody has changed it meanwhile. Try again")
                os.replace(beside, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(beside)
                raise
        except OSError as error:
            raise _left(self.name, f"it cannot be written ({error.strerror}). Its folder must be writable and have room") from error


class Trust:
    """Whether Jupyter trusts a notebook, which it knows by a digest of the content: what others wrote is shown without scripts until the
    person has run it or said `jupyter trust`.

    A notebook that was trusted as it was read is signed as it was written. All that was added is `text/html` of our own making, in which
    everything is escaped and no script stands, and the kernel would have left the very same; all else in it was trusted before, and would
    lose its trust with the digest for no reason. One that was not trusted stays so: to sign it would let through what others put into it.
    """

    def __init__(self) -> None:
        from jupyter_core.paths import jupyter_data_dir

        self._folder = jupyter_data_dir()

    def has(self, text: str) -> bool:
        if not (pathlib.Path(self._folder) / "nbsignatures.db").exists():
            return False  # nothing was ever trusted here, and a notary would make its database and a secret
        try:
            return self._asked(text, sign=False)
        except Exception:  # noqa: BLE001  # nbformat raises whatever odd content makes it raise: that was never signed
            return False

    def give(self, text: str) -> bool:
        """False if that failed."""
        try:
            return self._asked(text, sign=True)
        except Exception:  # noqa: BLE001  # a database that is locked or full: the notebook is whole, and only asks again
            return False

    def _asked(self, text: str, sign: bool) -> bool:
        from nbformat import reader
        from nbformat.sign import NotebookNotary

        notebook = reader.reads(text)  # as the server reads it, but without the check of its form, which may repair what it finds
        notary = NotebookNotary(data_dir=self._folder)
        with contextlib.closing(notary.store):
            if sign:
                notary.sign(notebook)
            return bool(notary.check_signature(notebook))


def _left(name: str, why: str) -> NotebookError:
    return NotebookError(file=say.plain(name), why=say.plain(why))
