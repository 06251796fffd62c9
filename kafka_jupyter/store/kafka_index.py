"""The `artifact_index` topic as a table in memory: what is stored in Kafka and where."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import msgspec

from kafka_jupyter.brokers.kafka import Message
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.errors import BadRecord, BadSignature, NewerRecord, OffsetGone
from kafka_jupyter.protocol.codec import VERSION
from kafka_jupyter.protocol.parts import IndexEntry
from kafka_jupyter.protocol.signing import tombstone
from kafka_jupyter.protocol.topics import ARTIFACT_INDEX
from kafka_jupyter.store.kafka_scan import Scanner

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(IndexEntry)
TYPE = "artifact"


def data_key(sha256: str) -> str:
    return f"data/{sha256}"


def upload_key(upload: str) -> str:
    return f"upload/{upload}"


def encode(entry: IndexEntry) -> bytes:
    return _encoder.encode(entry)


class Index:
    """Follows the index as far as it is asked to. Safe to use from many threads."""

    def __init__(self, log: Log, scanner: Scanner) -> None:
        self._log = log
        self._scanner = scanner
        self._place = log.topics.place(ARTIFACT_INDEX, "")
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[IndexEntry, int]] = {}
        self._position: int | None = None
        self._looked_s = -math.inf  # of time.monotonic: when `look_ahead` began

    def look_ahead(self) -> None:
        """Reads on, for a `get` that comes soon and may be content with that."""
        with self._lock:
            began_s = time.monotonic()
            self._catch_up()
            self._looked_s = began_s

    def get(self, key: str, age_s: float = 0.0) -> IndexEntry | None:
        """As the broker has it now; what is known may be as old as `age_s`."""
        with self._lock:
            if key not in self._entries or time.monotonic() - self._looked_s > age_s:
                self._catch_up()
            found = self._entries.get(key)
        return found[0] if found else None

    def items(self) -> list[tuple[str, IndexEntry, int]]:
        """(key, entry, append time in ms) of all entries, the oldest first."""
        with self._lock:
            self._catch_up()
            return [(key, entry, at_ms) for key, (entry, at_ms) in self._entries.items()]

    def _catch_up(self) -> None:
        try:
            self._read_on()
        except OffsetGone:  # the topic was made anew
            self._entries = {}
            self._position = None
            self._read_on()

    def _read_on(self) -> None:
        for message in self._scanner.scan(self._place, self._position):
            self._take(message)
            self._position = message.offset + 1

    def _take(self, message: Message) -> None:
        key = (message.key or b"").decode(errors="replace")
        try:
            origin = self._log.origin(message)
            self._log.check_type(message, origin, TYPE if message.value is not None else tombstone(TYPE))
        except BadSignature as bad:
            self._log.note_junk(ARTIFACT_INDEX, bad)
            return
        self._entries.pop(key, None)  # the newest last
        if message.value is None:
            return
        where: dict[str, Any] = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
        try:
            entry = _decoder.decode(message.value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._log.note_junk(ARTIFACT_INDEX, BadRecord(**where, why=str(error)[:200]))
            return
        if entry.v > VERSION:
            self._log.note_junk(ARTIFACT_INDEX, NewerRecord(**where, type="artifact", version=entry.v))
        elif key in (data_key(entry.ref.sha256), upload_key(entry.ref.upload)):
            self._entries[key] = (entry, message.time_ms)
        else:
            self._log.note_junk(ARTIFACT_INDEX, BadRecord(**where, why=f"its key is {key[:100]!r}"))
