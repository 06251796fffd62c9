"""The store: artifacts in, files out. Limits, hashes and the local cache are here; where bytes lie is a shelf's business."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import posixpath
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from kafka_jupyter.errors import ArtifactAltered, ArtifactTooLarge, ArtifactTruncated, StoreElsewhere, StoreUnavailable
from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.parts import InlineBytes, InlineText, KafkaRef, Part, Ref, UrlRef
from kafka_jupyter.store.cache import Cache, Incoming
from kafka_jupyter.store.source import Chunks, Progress, Source

SHA256 = re.compile(r"[0-9a-f]{64}\Z")
READS = 3  # of what comes altered or cut short from a URL
LEASE_TRIES = 5  # another process may evict a file between its fetch and its lease, but hardly again and again


@dataclasses.dataclass(frozen=True)
class Stored:
    """One thing on a shelf. `id` is what `rm` takes: the sha256 of a data set, the id of any other upload."""

    kind: str  # "data" | "upload"
    id: str
    name: str
    size: int  # bytes
    stored_ms: int  # the store's clock


class Shelf(Protocol):
    """Where artifacts lie. Safe to use from many threads."""

    url: str  # as in Settings.store
    limit: int | None  # bytes of one artifact

    def write(self, source: Source, data: bool) -> Ref:
        """Stores all of it, durably. `data`: under its sha256, to be found again."""

    def look_ahead(self) -> None:
        """`find` will be asked soon."""

    def find(self, sha256: str, size: int) -> Ref | None:
        """A stored data set, if all of it is there."""

    def read(self, ref: Ref) -> Iterator[tuple[int, bytes]]:
        """(position, bytes) of all of it, in any order. Raises ArtifactMissing and ArtifactTruncated."""

    def ls(self) -> list[Stored]: ...

    def rm(self, what: Ref | str) -> None:
        """By reference, sha256 or upload id. Raises ArtifactMissing."""

    def close(self) -> None: ...


class Store:
    """What everybody above uses; nobody above knows where the bytes lie. Safe to use from many threads.

    `shelf` takes what is put; references of the other kind are still read where a shelf of that kind is among `readable`.
    """

    def __init__(self, shelf: Shelf, cache: Cache, readable: dict[type[KafkaRef] | type[UrlRef], Shelf]) -> None:
        self._shelf = shelf
        self._cache = cache
        self._readable = readable
        self._guard = threading.Lock()
        self._busy: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()

    @property
    def url(self) -> str:
        return self._shelf.url

    def put(
        self,
        name: str,
        size: int,
        chunks: Chunks,
        sha256: str | None = None,
        progress: Progress | None = None,
        limited: bool = True,
        owner: str = "",
    ) -> Ref:
        """Streams `size` bytes into the store under a name of its own; they are there, durably, when this returns. `uploads_of` finds
        again what was put for an `owner`, whole or not.

        `limited=False` is for what a run has brought forth: the limit says no before a training, never after it.
        Raises ArtifactTooLarge before anything is sent, ArtifactAltered if the bytes are not those of `sha256`, BrokerError or
        StoreUnavailable.
        """
        if limited:
            self._check(name, size)
        return self._shelf.write(Source(name, size, chunks, sha256, progress, owner), data=False)

    def look_ahead(self) -> None:
        """For a thread of its own, where `put_data` comes in a moment: asks for what it needs to know. Raises BrokerError."""
        self._shelf.look_ahead()

    def put_data(self, name: str, size: int, chunks: Callable[[], Chunks], sha256: str, progress: Progress | None = None) -> Ref:
        """Like `put`, once per content: what is stored already (and all there) is not sent again. `digest` makes `sha256`."""
        with self._turn(sha256):  # ten threads that submit the same data set send it once
            found = self._shelf.find(sha256, size)
            if found is not None:
                return found
            self._check(name, size)
            return self._shelf.write(Source(name, size, chunks(), sha256, progress), data=True)

    def fetch(self, part: Part, name: str = "", progress: Progress | None = None) -> pathlib.Path:
        """The artifact as a local, verified, read-only file, to be opened or memory-mapped soon: a later fetch, also of another
        process, may evict it from the cache (which does not disturb whoever has it open). `lease` keeps it for longer.

        Raises ArtifactMissing, ArtifactTruncated, ArtifactAltered, StoreUnavailable, BrokerError.
        """
        label = name or describe(part)
        if not SHA256.match(part.sha256):
            raise ArtifactAltered(name=label, found="unknown", expected=repr(part.sha256[:80]))
        with self._turn(part.sha256):  # one download in this process
            cached = self._cache.get(part.sha256, part.size)
            if cached is not None:
                return cached
            with self._read_whole(part, label, progress, self._cache.incoming) as file:
                return self._cache.keep(file, part.sha256)

    def read(self, part: Part, name: str = "") -> bytes:
        """All bytes of a small artifact."""
        if isinstance(part, InlineText):
            return part.text.encode()
        if isinstance(part, InlineBytes):
            return part.data
        with self.lease() as lease:
            return lease.fetch(part, name).read_bytes()

    def verify(self, ref: Ref, name: str = "", progress: Progress | None = None) -> None:
        """Reads the artifact back from where it lies, past the cache, and hashes it: without room on our disk, unless its pieces come in
        another order. Raises as `fetch`."""
        label = name or describe(ref)
        try:
            with self._read_whole(ref, label, progress, _passing):
                pass
        except _AnotherOrder:
            with self._read_whole(ref, label, progress, self._cache.incoming):
                pass

    def lease(self) -> Lease:
        """`with store.lease() as lease: path = lease.fetch(part)`: the files stay in the cache until the end of the block."""
        return Lease(self, self._cache)

    def ls(self) -> list[Stored]:
        return self._shelf.ls()

    def uploads_of(self, owner: str) -> list[str]:
        """The ids of all that was put for this owner and is still there."""
        prefix = ids.upload_prefix(owner)
        return [stored.id for stored in self._shelf.ls() if stored.kind == "upload" and stored.id.startswith(prefix)]

    def rm(self, what: Ref | str) -> None:
        """Deletes an artifact: by reference, sha256 of a data set, or upload id. Raises ArtifactMissing.

        A run that was given the reference before cannot be trained any more, except where it is cached.
        """
        shelf = self._shelf_of(what) if isinstance(what, KafkaRef | UrlRef) else self._shelf
        sha256 = what if isinstance(what, str) else what.sha256
        shelf.rm(what)
        if SHA256.match(sha256):
            self._cache.drop(sha256)

    def close(self) -> None:
        for shelf in {id(shelf): shelf for shelf in (self._shelf, *self._readable.values())}.values():
            shelf.close()

    def _check(self, name: str, size: int) -> None:
        limit = self._shelf.limit
        if limit is not None and size > limit:
            raise ArtifactTooLarge(name=name, size=_mib(size), limit=_mib(limit), store=self.url)

    @contextlib.contextmanager
    def _read_whole(
        self, part: Part, label: str, progress: Progress | None, incoming: Callable[[], contextlib.AbstractContextManager[_Incoming]]
    ) -> Iterator[_Incoming]:
        """All bytes, hashed. What a URL gives is read again before it is called altered: it may have been spoilt on its way, which
        Kafka's client finds by itself."""
        for tries_left in reversed(range(READS if isinstance(part, UrlRef) else 1)):
            with incoming() as file:
                try:
                    self._receive(part, label, file, progress)
                except (ArtifactAltered, ArtifactTruncated):
                    if tries_left:
                        continue
                    raise
                yield file
                return

    def _receive(self, part: Part, label: str, file: Incoming | _Passing, progress: Progress | None) -> None:
        for position, piece in self._pieces(part):
            if position + len(piece) > part.size:  # also keeps a foreign chunk number from making a file of petabytes
                raise ArtifactAltered(name=label, found="that of more bytes", expected=part.sha256)
            file.write(position, piece)
            if progress:
                progress(file.written, part.size)
        _verify(label, part, file)

    def _pieces(self, part: Part) -> Iterator[tuple[int, bytes]]:
        if isinstance(part, InlineText | InlineBytes):
            return iter([(0, self.read(part))])
        return self._shelf_of(part).read(part)

    def _shelf_of(self, ref: Ref) -> Shelf:
        shelf = self._readable.get(type(ref))
        if shelf is None:
            raise StoreElsewhere(store=self.url, name=describe(ref))
        return shelf

    def _turn(self, sha256: str) -> threading.Lock:
        """One lock a digest; it goes away when nobody uses it."""
        with self._guard:
            turn = self._busy.get(sha256)
            if turn is None:
                turn = self._busy[sha256] = threading.Lock()
            return turn


class _AnotherOrder(Exception):
    """The pieces do not come as they lie."""


class _Passing:
    """What comes is hashed and not kept."""

    def __init__(self) -> None:
        self.written = 0
        self._hash = hashlib.sha256()

    def write(self, position: int, piece: bytes) -> None:
        if position != self.written:
            raise _AnotherOrder
        self._hash.update(piece)
        self.written += len(piece)

    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def _passing() -> Iterator[_Passing]:
    yield _Passing()


_Incoming = TypeVar("_Incoming", Incoming, _Passing)


class Lease:
    """Files that stay in the cache, against every process' eviction, until the lease ends."""

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._held = contextlib.ExitStack()

    def fetch(self, part: Part, name: str = "", progress: Progress | None = None) -> pathlib.Path:
        """As `Store.fetch`."""
        for _ in range(LEASE_TRIES):
            path = self._store.fetch(part, name, progress)
            fd = self._cache.hold(path)
            if fd is not None:
                self._held.callback(os.close, fd)
                return path
        raise StoreUnavailable(store=self._store.url, detail="its local cache is too small: files go as soon as they come")

    def close(self) -> None:
        self._held.close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def upload_id(ref: Ref) -> str:
    """As `uploads_of` gives it."""
    return ref.upload if isinstance(ref, KafkaRef) else posixpath.basename(ref.url)


def describe(part: Part) -> str:
    """A short name for messages."""
    if isinstance(part, KafkaRef):
        return f"{part.topic}[{part.partition}]@{part.offset} (upload {part.upload})"
    if isinstance(part, UrlRef):
        return part.url
    return f"of {part.size} bytes in the record"


def _verify(label: str, part: Part, file: Incoming | _Passing) -> None:
    if file.written < part.size:
        raise ArtifactTruncated(name=label, size=file.written, expected=part.size)
    found = file.sha256()
    if found != part.sha256:
        raise ArtifactAltered(name=label, found=found, expected=part.sha256)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
