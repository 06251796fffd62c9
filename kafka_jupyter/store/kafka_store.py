"""The default store, so that Kafka alone is enough: chunks in the topic `artifact`, an index of what is there in `artifact_index`.

An upload is `<upload>/0`, `<upload>/1`, … in one partition. Keys are unique, so compaction deletes nothing but what a tombstone
names. Whatever is deleted leaves the index first: an index entry is a promise that the chunks are there.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Iterator

import msgspec

from kafka_jupyter import redact
from kafka_jupyter.brokers.kafka import Message
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.errors import (
    ArtifactMissing,
    ArtifactTruncated,
    BadSignature,
    BrokerError,
    DeliveryInferred,
    DeliveryUnknown,
    OffsetGone,
    TrustError,
)
from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.parts import IndexEntry, KafkaRef, Ref, UrlRef
from kafka_jupyter.protocol.signing import tombstone
from kafka_jupyter.protocol.topics import ARTIFACT, ARTIFACT_INDEX, CHUNK
from kafka_jupyter.settings import Settings
from kafka_jupyter.store.base import Stored, describe
from kafka_jupyter.store.kafka_index import TYPE, Index, data_key, encode, upload_key
from kafka_jupyter.store.kafka_scan import Scanner
from kafka_jupyter.store.source import Source, pieces_of

logger = redact.logger(__name__)

WINDOW = 32  # chunks on their way to the broker, of all uploads together: 16 MiB of memory
# So old may be what `find` takes from `look_ahead`: longer than most models take to be described. Who deletes a data set meanwhile is seen
# behind its chunks, unless more than AFTERMATH records have come after them.
LOOK_AHEAD_S = 2.0
AFTERMATH = 128  # records behind a data set that are looked through for tombstones before it is used again
_Record = tuple[str, int, str, str, bytes | None]  # topic, partition, type, key, value
CHUNK_TYPE = "chunk"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class KafkaShelf:
    """Chunks are written with acks=all (and flushed, on a single broker) before a reference to them exists."""

    url = "kafka:"

    def __init__(self, settings: Settings, log: Log) -> None:
        self._log = log
        self.limit: int | None = settings.store_limit
        self._patience_s = settings.delivery_timeout_s
        self._scanner = Scanner(log.cluster)
        self._index = Index(log, self._scanner)
        # Its own one: heartbeats must not queue up behind megabytes. Made at once: the first record of an idempotent producer
        # waits half a second for its producer id.
        self._producer = Producer(log.cluster)
        self._window = threading.Semaphore(WINDOW)
        self._deleted: set[str] = set()  # uploads; their chunks stay readable until Kafka compacts the log
        self._seen_whole: dict[str, int] = {}  # upload -> offset up to which nothing was wrong with it

    def write(self, source: Source, data: bool) -> Ref:
        upload = ids.new_upload_id(source.owner)
        topic, partition = self._log.topics.place(ARTIFACT, upload)
        begun = KafkaRef(topic, partition, -1, pieces_of(source.size), upload, source.size, "")
        acks = Acks(self._log, self._producer, self._window, self._patience_s)
        try:
            acks.send(*self._index_record(upload_key(upload), IndexEntry(source.name, begun)))
            offsets = Acks(self._log, self._producer, self._window, self._patience_s)
            for number, piece in enumerate(source):
                offsets.send(topic, partition, CHUNK_TYPE, f"{upload}/{number}", piece)
            offsets.wait()
            acks.wait()
        except BrokerError:  # what was written stays, an orphan that `ls` shows: nobody could delete it now
            raise
        except BaseException:
            with contextlib.suppress(BrokerError):  # the first error is the one to tell
                self._bury(begun)
            raise
        ref = msgspec.structs.replace(begun, offset=offsets.first, last=offsets.last, sha256=source.sha256)
        if data:
            acks.send(*self._index_record(data_key(source.sha256), IndexEntry(source.name, ref)))
            acks.wait()
            self._seen_whole[upload] = ref.last + 1
        return ref

    def look_ahead(self) -> None:
        self._index.look_ahead()

    def find(self, sha256: str, size: int) -> Ref | None:
        entry = self._index.get(data_key(sha256), LOOK_AHEAD_S)
        if entry is None or entry.ref.size != size or not self._is_whole(entry.ref):
            return None
        return entry.ref

    def read(self, ref: Ref) -> Iterator[tuple[int, bytes]]:
        """Stops at the last chunk; knows the end of the log, so that what is missing is told and not waited for."""
        assert isinstance(ref, KafkaRef)
        seen: set[int] = set()
        size = 0
        if ref.chunks == 0:
            return
        if ref.upload in self._deleted:
            raise ArtifactMissing(name=describe(ref), detail="it was deleted")
        for message in self._messages(ref, ref.offset, ref.last + 1 if ref.last >= 0 else None):
            number = _number(message, ref)
            if number is None or number in seen or not self._is_ours(message):
                continue
            if message.value is None:
                raise ArtifactMissing(name=describe(ref), detail="it was deleted")
            seen.add(number)
            size += len(message.value)
            yield number * CHUNK, message.value
            if len(seen) == ref.chunks:
                return
        if not seen:
            raise ArtifactMissing(name=describe(ref), detail="none of its chunks is there")
        raise ArtifactTruncated(name=describe(ref), size=size, expected=ref.size, detail=f"{ref.chunks - len(seen)} chunks are missing.")

    def ls(self) -> list[Stored]:
        items = self._index.items()
        sets = {entry.ref.upload for key, entry, _ in items if key == data_key(entry.ref.sha256)}
        return [
            Stored("data" if is_set else "upload", entry.ref.sha256 if is_set else entry.ref.upload, entry.name, entry.ref.size, at_ms)
            for key, entry, at_ms in items
            if (is_set := key.startswith("data/")) or entry.ref.upload not in sets
        ]

    def rm(self, what: Ref | str) -> None:
        if isinstance(what, UrlRef):
            raise ArtifactMissing(name=what.url, detail="it is not in Kafka")
        if isinstance(what, str):
            entry = self._index.get(data_key(what) if _SHA256.match(what) else upload_key(what))
            if entry is None:
                raise ArtifactMissing(name=what, detail="no data set has this sha256 and no upload this id")
            what = entry.ref
        self._bury(what)

    def close(self) -> None:
        self._scanner.close()
        self._producer.close()

    def _bury(self, ref: KafkaRef) -> None:
        """Tombstones: the promise first, then the chunks, then the note that they exist."""
        self._deleted.add(ref.upload)
        named = [key for key, entry, _ in self._index.items() if key.startswith("data/") and entry.ref.upload == ref.upload]
        for step in (
            [self._index_record(key, None) for key in named],
            [(ref.topic, ref.partition, tombstone(CHUNK_TYPE), f"{ref.upload}/{number}", None) for number in range(ref.chunks)],
            [self._index_record(upload_key(ref.upload), None)],
        ):
            acks = Acks(self._log, self._producer, self._window, self._patience_s)
            for record in step:
                acks.send(*record)
            acks.wait()

    def _is_whole(self, ref: KafkaRef) -> bool:
        """Whether all chunks are there and nobody has deleted one.

        `rm` takes a data set out of the index first, so this is for what happened outside: retention, a topic made anew,
        somebody's own tombstones. Looks at every chunk, and behind the last one as far as it is cheap, but never twice.
        """
        start = self._seen_whole.get(ref.upload)
        try:
            if start is None:
                for _ in self.read(ref):
                    pass
                start = ref.last + 1
            for message in self._messages(ref, start, start + AFTERMATH) if ref.chunks else ():
                if message.value is None and _number(message, ref) is not None:  # whoever wrote it: compaction does not ask
                    return False
                start = message.offset + 1
        except (ArtifactMissing, ArtifactTruncated) as why:
            logger.info("a stored data set is stored again: %s", why)
            return False
        self._seen_whole[ref.upload] = start
        return True

    def _messages(self, ref: KafkaRef, start: int, until: int | None) -> Iterator[Message]:
        place = (ref.topic, ref.partition)
        if place != self._log.topics.place(ARTIFACT, ref.upload):
            raise ArtifactMissing(name=describe(ref), detail=f"this store reads {self._log.topics.name(ARTIFACT)}")
        try:
            yield from self._scanner.scan(place, start, until)
        except OffsetGone as gone:
            raise ArtifactMissing(name=describe(ref), detail="the log does not hold its place any more") from gone

    def _is_ours(self, message: Message) -> bool:
        """Whether one who may write chunks has signed it. Another's under the same key is passed over: what was written is still there."""
        try:
            self._log.check_type(message, self._log.origin(message), tombstone(CHUNK_TYPE) if message.value is None else CHUNK_TYPE)
        except BadSignature as bad:
            self._log.note_junk(ARTIFACT, bad)
            return False
        return True

    def _index_record(self, key: str, entry: IndexEntry | None) -> _Record:
        topic, partition = self._log.topics.place(ARTIFACT_INDEX, key)
        return (topic, partition, tombstone(TYPE), key, None) if entry is None else (topic, partition, TYPE, key, encode(entry))


class Acks:
    """Sends records and waits until the broker has them all. The window bounds what is on its way: memory, whatever the size."""

    def __init__(self, log: Log, producer: Producer, window: threading.Semaphore, patience_s: float) -> None:
        self.first = -1  # offsets
        self.last = -1
        self._log = log
        self._producer = producer
        self._window = window
        self._patience_s = patience_s + 5  # the producer itself gives up earlier, and says why
        self._changed = threading.Condition()
        self._open = 0
        self._again: list[_Record] = []  # the client only believes that they were written
        self._error: BrokerError | TrustError | None = None

    def send(self, topic: str, partition: int, type_: str, key: str, value: bytes | None) -> None:
        """Raises the error of an earlier record of this batch, if there was one."""
        if not self._window.acquire(timeout=self._patience_s):
            raise self._too_long(topic)
        with self._changed:
            self._open += 1
        record = (topic, partition, type_, key, value)
        try:
            if self._error is not None:
                raise self._error
            signed = self._log.signed(topic, type_, key.encode(), value)
            told = functools.partial(self._delivered, record)
            self._producer.send(topic, partition, key.encode(), value, signed, told)
        except (BrokerError, TrustError) as error:
            self._delivered(record, error, -1)
            raise

    def wait(self) -> None:
        """Until all are in the log. What has no offset is sent again: no reference could name it, and it may not be there at all."""
        while True:
            with self._changed:
                done = self._changed.wait_for(lambda: self._open == 0, self._patience_s)
                again, self._again = self._again, []
            if self._error is not None:
                raise self._error
            if not done:
                raise self._too_long(ARTIFACT)
            if not again:
                return
            for record in again:
                self.send(*record)

    def _delivered(self, record: _Record, error: BrokerError | TrustError | None, offset: int) -> None:
        self._window.release()
        with self._changed:
            self._open -= 1
            if isinstance(error, DeliveryInferred):
                self._again.append(record)
            elif error is not None:
                self._error = self._error or error
            else:
                self.first = offset if self.first < 0 else min(self.first, offset)
                self.last = max(self.last, offset)
            self._changed.notify_all()

    def _too_long(self, topic: str) -> DeliveryUnknown:
        return DeliveryUnknown(servers=self._producer.servers, topic=topic, detail="nothing was confirmed for too long")


def _number(message: Message, ref: KafkaRef) -> int | None:
    """Which chunk of this upload it is; None if it is somebody else's."""
    upload, _, number = (message.key or b"").partition(b"/")
    if upload != ref.upload.encode() or not number.isdigit() or len(number) > 9:
        return None
    found = int(number)
    return found if found < ref.chunks else None
