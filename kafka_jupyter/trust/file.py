"""The trust file on the disk: read again when it has changed."""

from __future__ import annotations

import os
import pathlib
import threading
import time

from kafka_jupyter import redact
from kafka_jupyter.errors import BadTrustFile
from kafka_jupyter.trust import listed
from kafka_jupyter.trust.listed import TrustList

logger = redact.logger(__name__)

_State = tuple[int, int, int]  # inode, size, time of change: what tells one content from the next


class TrustFile:
    """Thread-safe. A file that becomes unreadable or goes away changes nothing: what it said last goes on to hold, and that is logged."""

    def __init__(self, path: pathlib.Path, reload_s: float) -> None:
        """Raises BadTrustFile if it cannot be read now."""
        self.path, self.reload_s = path, reload_s
        self._lock = threading.Lock()
        self._look_at_s = 0.0
        self._trouble = ""
        self._state, self._list = _read(path)

    def current(self) -> TrustList:
        """As the file was `reload_s` ago at most."""
        with self._lock:
            now = time.monotonic()
            if now >= self._look_at_s:
                self._look_at_s = now + self.reload_s
                self._look()
            return self._list

    def _look(self) -> None:
        try:
            if _state_of(os.stat(self.path)) == self._state:
                return
            self._state, self._list = _read(self.path)
        except (OSError, BadTrustFile) as failure:
            if str(failure) != self._trouble:
                logger.error("the trust file is not read again, what it said last goes on to hold: %s", failure)
            self._trouble = str(failure)
        else:
            logger.info("read the trust file %s again: %d keys", self.path, len(self._list.keys))
            self._trouble = ""


def _read(path: pathlib.Path) -> tuple[_State, TrustList]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(listed.FILE_LIMIT + 1)
    except OSError as error:
        raise BadTrustFile(file=path, why=str(error)) from error
    if status.st_mode & 0o022 or status.st_uid not in (os.getuid(), 0):
        raise BadTrustFile(file=path, why=f"others may change it: chmod 644 {path}, and make it yours or root's")
    if len(text) > listed.FILE_LIMIT:
        raise BadTrustFile(file=path, why=f"it has more than {listed.FILE_LIMIT} bytes")
    try:
        return _state_of(status), listed.parse(text.decode(), path)
    except UnicodeDecodeError as error:
        raise BadTrustFile(file=path, why="it is no UTF-8") from error


def _state_of(status: os.stat_result) -> _State:
    return status.st_ino, status.st_size, status.st_mtime_ns
