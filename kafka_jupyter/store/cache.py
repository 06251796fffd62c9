"""Artifacts as local files, shared by all processes of this user: named by sha256, read-only, least recently used ones go first.

Facts this rests on:
- A file appears by `os.link`, whole and verified. Of two processes that fetch the same artifact at once the second finds the file of
  the first: it must not put its own in its place, because a lease is a lock on the file and not on its name.
- POSIX keeps an unlinked file alive while it is open or mapped: eviction never harms whoever has opened it.
- Between `fetch` and `open` a file could go. A lease closes that gap: a shared `flock` on the file, which every process' eviction
  respects and which the kernel drops when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator

from kafka_jupyter.errors import StoreError

STALE_S = 86_400.0  # an unfinished download of a dead process is removed after a day
RESCAN = 16  # the folder is counted anew after limit/16 new bytes: other processes fill it too


class Incoming:
    """A file that is being written. Pieces may come in any order; in order they are hashed on the way."""

    def __init__(self, path: pathlib.Path, fd: int) -> None:
        self.path = path
        self.written = 0
        self._file = os.fdopen(fd, "w+b", buffering=0)
        self._hash = hashlib.sha256()
        self._hashed = 0

    def write(self, position: int, piece: bytes) -> None:
        if position == self._hashed:
            self._hash.update(piece)
            self._hashed += len(piece)
        left, at = memoryview(piece), position
        while left:
            count = os.pwrite(self._file.fileno(), left, at)
            left, at = left[count:], at + count
        self.written += len(piece)

    def sha256(self) -> str:
        if self._hashed == self.written:
            return self._hash.hexdigest()
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def close(self) -> None:
        self._file.close()


class Cache:
    """`limit` in bytes. One artifact larger than that is still kept until the next one comes: somebody asked for it."""

    def __init__(self, folder: pathlib.Path, limit: int) -> None:
        self._files = folder / "artifacts"
        self._unfinished = folder / "incoming"
        self._lock_file = folder / "lock"
        self._limit = limit
        self._guard = threading.Lock()
        self._genuine: dict[str, tuple[int, int]] = {}  # sha256 -> (inode, mtime) of the file that this process has verified
        self._counted = 0  # bytes in the folder when it was last counted, and what came since
        self._uncounted = limit  # so that the first new file counts
        with self._named():
            self._files.mkdir(parents=True, exist_ok=True)
            self._unfinished.mkdir(exist_ok=True)

    def get(self, sha256: str, size: int) -> pathlib.Path | None:
        """The file, if it is here and still what it was. A damaged one is removed. The whole file is hashed when this process
        sees it for the first time or its modification time has changed."""
        path = self._files / sha256
        with self._named():
            try:
                found = path.stat()
                if found.st_size != size or not self._is_genuine(path, found, sha256):
                    path.unlink(missing_ok=True)
                    return None
                os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))  # access time is the age; the file system may not keep it
            except FileNotFoundError:  # evicted by another process in this moment
                return None
        return path

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A new file; it vanishes unless it is kept."""
        with self._named():
            fd, name = tempfile.mkstemp(dir=self._unfinished)
        path = pathlib.Path(name)
        file = Incoming(path, fd)
        try:
            with self._named():
                yield file
        finally:
            file.close()
            path.unlink(missing_ok=True)

    def keep(self, file: Incoming, sha256: str) -> pathlib.Path:
        """Takes a complete and verified file in and makes room for it; or gives that of another process, which was faster."""
        path = self._files / sha256
        with self._named():
            file.path.chmod(0o444)
            found = file.path.stat()
            while not _appeared(file.path, path):
                theirs = self.get(sha256, found.st_size)
                if theirs is not None:
                    return theirs
            with self._guard:
                self._genuine[sha256] = (found.st_ino, found.st_mtime_ns)
            self._make_room(path, found.st_size)
        return path

    def drop(self, sha256: str) -> None:
        """Forgets a file. Whoever has it open keeps it."""
        with self._named():
            (self._files / sha256).unlink(missing_ok=True)

    def hold(self, path: pathlib.Path) -> int | None:
        """A descriptor whose life keeps `path` from eviction; None if the file went in this moment."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with contextlib.suppress(OSError):  # a file system without locks: age alone decides there
            fcntl.flock(fd, fcntl.LOCK_SH)
        try:
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)
        return None

    def _is_genuine(self, path: pathlib.Path, found: os.stat_result, sha256: str) -> bool:
        mark = (found.st_ino, found.st_mtime_ns)
        if self._genuine.get(sha256) == mark:
            return True
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
        with self._guard:
            self._genuine[sha256] = mark
        return True

    def _make_room(self, newest: pathlib.Path, size: int) -> None:
        with self._guard:
            self._counted += size
            self._uncounted += size
            if self._counted <= self._limit and self._uncounted < self._limit // RESCAN:
                return
            with self._lock_file.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._counted = self._evict(newest)
            self._uncounted = 0

    def _evict(self, newest: pathlib.Path) -> int:
        """Removes the files that nobody asked for the longest; the number of bytes that stay."""
        for path, _ in _listed(self._unfinished):
            if _age_s(path) > STALE_S:
                path.unlink(missing_ok=True)
        files = sorted(_listed(self._files), key=lambda item: item[1].st_atime_ns)
        total = sum(found.st_size for _, found in files)
        for path, found in files:
            if total <= self._limit:
                break
            if path != newest and _removed(path):
                self._genuine.pop(path.name, None)
                total -= found.st_size
        return total

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            detail = f"{error.strerror or error} (KAFKA_JUPYTER_CACHE_DIR and KAFKA_JUPYTER_CACHE_LIMIT move and bound the cache)"
            raise StoreError(store=f"cache at {self._files.parent}", detail=detail) from error


def _listed(folder: pathlib.Path) -> list[tuple[pathlib.Path, os.stat_result]]:
    listed = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                listed.append((pathlib.Path(entry.path), entry.stat()))
    return listed


def _age_s(path: pathlib.Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _appeared(file: pathlib.Path, path: pathlib.Path) -> bool:
    """False if there is one of that name."""
    try:
        os.link(file, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        os.replace(file, path)
    return True


def _removed(path: pathlib.Path) -> bool:
    """False if somebody holds a lease on it."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        with contextlib.suppress(OSError):  # a file system without locks: age alone decides there
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)
    return True
