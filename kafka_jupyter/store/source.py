"""Bytes on their way into a store: any chunks in, pieces of one size out, counted and hashed as they pass."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from kafka_jupyter.errors import ArtifactAltered, StoreError
from kafka_jupyter.protocol.topics import CHUNK

Chunks = Iterable[bytes | bytearray | memoryview]
Progress = Callable[[int, int], None]  # bytes done, bytes in all


def digest(chunks: Chunks) -> tuple[str, int]:
    """(sha256 in hex, number of bytes) of all chunks together. hashlib lets other threads run meanwhile."""
    total, hashing = 0, hashlib.sha256()
    for chunk in chunks:
        hashing.update(chunk)
        total += memoryview(chunk).nbytes
    return hashing.hexdigest(), total


class Hashing:
    """SHA-256 of pieces while whoever gave them does something else with them: to hash costs as much as to write to a disk. One piece at a
    time, so that no more of them wait in memory; the first one, which may be the only one, at once."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._count = 0
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def update(self, piece: bytes) -> None:
        self._count += 1
        if self._count == 1:
            self._sum.update(piece)
            return
        self._wait()
        self._thread = self._thread or ThreadPoolExecutor(1, "kafka_jupyter-hashing")
        self._last = self._thread.submit(self._sum.update, piece)

    def hexdigest(self) -> str:
        self._wait()
        return self._sum.hexdigest()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()


def pieces_of(size: int) -> int:
    """How many pieces `size` bytes make. Nothing at all makes none."""
    return -(-size // CHUNK)


class Source:
    """Iterate it once: it yields pieces of exactly CHUNK bytes, the last one shorter.

    Each piece is copied first and hashed then, so the digest is that of the bytes that were sent, even if somebody writes into
    the array meanwhile. The end of the iteration raises StoreError if the source gave more or less than it had announced and
    ArtifactAltered if it is not what its digest had promised.
    """

    def __init__(
        self, name: str, size: int, chunks: Chunks, sha256: str | None = None, progress: Progress | None = None, owner: str = ""
    ) -> None:
        self.name = name
        self.owner = owner  # see ids.upload_prefix
        self.size = size
        self.sha256 = sha256 or ""  # complete at the end of the iteration
        self._chunks = chunks
        self._progress = progress

    def __iter__(self) -> Iterator[bytes]:
        with contextlib.closing(Hashing()) as hashing:
            done = 0
            for piece in _cut(self._chunks):
                hashing.update(piece)
                done += len(piece)
                if done > self.size:
                    raise StoreError(f"{self.name} was announced with {self.size} bytes and gives more")
                yield piece
                if self._progress:
                    self._progress(done, self.size)
            if done < self.size:
                raise StoreError(f"{self.name} was announced with {self.size} bytes and gave only {done}")
            found = hashing.hexdigest()
        if self.sha256 and self.sha256 != found:
            raise ArtifactAltered(name=f"{self.name} (it changed while it was being sent)", found=found, expected=self.sha256)
        self.sha256 = found


def _cut(chunks: Chunks) -> Iterator[bytes]:
    rest = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        if view.nbytes == 0:  # `cast` refuses a shape with a zero in it
            continue
        view = view.cast("B")
        start = 0
        if rest:
            start = CHUNK - len(rest)
            rest += view[:start]
            if len(rest) < CHUNK:
                continue
            yield bytes(rest)
            rest = bytearray()
        while len(view) - start >= CHUNK:
            yield bytes(view[start : start + CHUNK])
            start += CHUNK
        rest += view[start:]
    if rest:
        yield bytes(rest)
