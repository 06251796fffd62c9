"""Control records that must stand in the log: sent again, the same bytes, until they are read back (rule 5).

A delivery failure means "unknown"; the fold makes duplicates mean nothing, so sending again is always right. Records of one run go
out one behind the other, each when the one before was read back: a Started that an outage delays must not come behind its Succeeded.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import codec, control

logger = redact.logger(__name__)

RESEND_S = 0.5  # after a failed delivery; the client's own delivery timeout has passed already


@dataclasses.dataclass
class _Entry:
    record: control.Record
    due_s: float | None  # when to send (again); None while it is on its way or acked
    refused: Callable[[errors.RecordTooLarge], None] | None


class Outbox:
    """Thread-safe. Feed it with what was read (`saw`) and call `tick` now and then."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._entries: dict[bytes, _Entry] = {}

    def put(self, record: control.Record, refused: Callable[[errors.RecordTooLarge], None] | None = None) -> None:
        """Sends the record now, and again as long as it takes.

        One that is too large for the broker will never get there: it is dropped, and `refused` is called, on any thread.
        """
        with self._lock:
            self._entries.setdefault(codec.encode(record), _Entry(record, 0.0, refused))
        self.tick()

    def saw(self, record: control.Record) -> None:
        """This record was read from the log."""
        with self._lock:
            seen = self._entries.pop(codec.encode(record), None) if self._entries else None
        if seen is not None:
            self.tick()

    def drop(self, run_id: str) -> None:
        """Whatever waits for this run does not matter any more."""
        with self._lock:
            self._entries = {key: entry for key, entry in self._entries.items() if entry.record.run_id != run_id}

    def pending(self, run_id: str | None = None) -> int:
        with self._lock:
            return sum(1 for entry in self._entries.values() if run_id in (None, entry.record.run_id))

    def tick(self, now_s: float | None = None) -> None:
        """Sends what is due."""
        now = time.monotonic() if now_s is None else now_s
        with self._lock:
            first: dict[str, tuple[bytes, _Entry]] = {}  # by run
            for key, entry in self._entries.items():
                first.setdefault(entry.record.run_id, (key, entry))
            due = [(key, entry) for key, entry in first.values() if entry.due_s is not None and entry.due_s <= now]
            for _, entry in due:
                entry.due_s = None
        for key, entry in due:
            try:
                self._log.send_control(entry.record, functools.partial(self._delivered, key))
            except errors.BrokerError as failure:
                self._delivered(key, failure, -1)

    def _delivered(self, key: bytes, error: errors.BrokerError | None, _offset: int) -> None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or error is None:
                return
            if not isinstance(error, errors.RecordTooLarge):
                entry.due_s = time.monotonic() + RESEND_S
                return
            del self._entries[key]
        logger.error("%s of %s is given up: %s", type(entry.record).__name__, entry.record.run_id, error)
        if entry.refused is not None:
            entry.refused(error)
