"""The `artifact_index` topic as a table in memory: what is stored in Kafka and where."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec

from kafka_jupyter.brokers.kafka import Message, Reader
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.errors import BadRecord, BrokerUnreachable, NewerRecord, OffsetGone
from kafka_jupyter.protocol.codec import VERSION
from kafka_jupyter.protocol.parts import IndexEntry
from kafka_jupyter.protocol.topics import ARTIFACT_INDEX

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(IndexEntry)


def data_key(sha256: str) -> str:
    return f"data/{sha256}"


def upload_key(upload: str) -> str:
    return f"upload/{upload}"


def encode(entry: IndexEntry) -> bytes:
    return _encoder.encode(entry)


class Index:
    """Follows the index as far as it is asked to. Safe to use from many threads."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._place = log.topics.place(ARTIFACT_INDEX, "")
        self._patience_s = max(log.cluster.settings.connect_timeout_s, log.cluster.settings.delivery_timeout_s)
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._entries: dict[str, tuple[IndexEntry, int]] = {}
        self._position = 0

    def get(self, key: str) -> IndexEntry | None:
        """As the broker has it now."""
        with self._lock:
            self._catch_up()
            found = self._entries.get(key)
        return found[0] if found else None

    def items(self) -> list[tuple[str, IndexEntry, int]]:
        """(key, entry, append time in ms) of all entries, the oldest first."""
        with self._lock:
            self._catch_up()
            return [(key, entry, at_ms) for key, (entry, at_ms) in self._entries.items()]

    def close(self) -> None:
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _catch_up(self) -> None:
        try:
            for message in self._news():
                self._take(message)
        except OffsetGone:  # compaction never does that: the topic was made anew while we were reading
            self._forget()
            raise

    def _news(self) -> Iterator[Message]:
        if self._reader is None:
            self._reader = Reader(self._log.cluster)
            self._entries = {}
            self._position = -1
        low, high = self._reader.bounds(self._place)
        if not low <= self._position <= high:  # the first time, or the topic was made anew
            self._entries = {}
            self._position = low
            self._reader.assign({self._place: low})
        heard = time.monotonic()
        while self._position < high:
            for message in self._reader.poll(0.2):
                self._position = message.offset + 1
                heard = time.monotonic()
                yield message
            if time.monotonic() - heard > self._patience_s:
                detail = f"(the index of the store does not come: {self._reader.trouble})"
                self._forget()
                raise BrokerUnreachable(servers=self._log.cluster.servers, detail=detail)

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _take(self, message: Message) -> None:
        key = (message.key or b"").decode(errors="replace")
        self._entries.pop(key, None)  # the newest last
        if message.value is None:
            return
        try:
            entry = _decoder.decode(message.value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._log.note_junk(ARTIFACT_INDEX, BadRecord(**_where(message), why=str(error)[:200]))
            return
        if entry.v > VERSION:
            self._log.note_junk(ARTIFACT_INDEX, NewerRecord(**_where(message), type="artifact", version=entry.v))
        elif key in (data_key(entry.ref.sha256), upload_key(entry.ref.upload)):
            self._entries[key] = (entry, message.time_ms)
        else:
            self._log.note_junk(ARTIFACT_INDEX, BadRecord(**_where(message), why=f"its key is {key[:100]!r}"))


def _where(message: Message) -> dict[str, object]:
    return {"topic": message.topic, "partition": message.partition, "offset": message.offset}
