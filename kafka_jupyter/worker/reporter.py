"""Rows of one attempt on their way to `training_log`: numbered, batched, bounded; metrics may be delayed, EpochEnded never lost.

One batch is on its way at a time: what comes meanwhile goes with the next one, so order is kept and batches grow with the load.
"""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Callable, Collection

import msgspec

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol.rows import LINE_LIMIT, BatchProgress, EpochEnded, LogLine, Metrics, Row, RowBatch

BUFFER_LIMIT = 16 << 20  # bytes of waiting rows an attempt, roughly; beyond it running numbers and log lines are thinned
WORKER_LIMIT = 48 << 20  # … of all attempts of a worker together
BATCH_LIMIT = 256 << 10  # bytes of one record, roughly; less where the broker takes less
RETRY_S = 0.5
_ROW_BYTES = 160  # of a row without its text
_CUT = " … (cut: Kafka takes smaller records)"


class Reporter:
    """Used by the supervisor's loop only. `post(callable)` runs something on that loop: delivery reports come from elsewhere."""

    def __init__(
        self, log: Log, run_id: str, n: int, worker: str, nonce: str, post: Callable[[Callable[[], None]], None], slots: int = 1
    ) -> None:
        """`slots`: how many attempts the worker may have at a time."""
        self._log, self._post = log, post
        self._limit = min(BUFFER_LIMIT, WORKER_LIMIT // slots)
        self._attempt = (run_id, n, worker, nonce)
        self._seq = 0
        self._waiting: collections.deque[Row] = collections.deque()
        self._bytes = self._lasting = 0  # of all that wait, and of those among them that may not be dropped: ends of epochs
        self._flying: list[Row] = []
        self._retry_at = 0.0
        self._batch_limit = BATCH_LIMIT
        self._incomplete: set[int] = set()  # seq of rows that had to give metrics away
        self.last_offset: int | None = None
        self.thinned = self._lines_gone = 0
        self.place = (0, 0)  # (epoch, step) of the latest row

    @property
    def waiting_bytes(self) -> int:
        """Of the rows that are not on their way yet, roughly."""
        return self._bytes

    @property
    def empty(self) -> bool:
        """All rows are in the log."""
        return not self._waiting and not self._flying

    @property
    def behind(self) -> int:
        """How many rows are not in the log."""
        return len(self._waiting) + len(self._flying)

    @property
    def last_seq(self) -> int:
        """Of the newest row."""
        return self._seq

    def delivered(self, seq: int) -> bool:
        """All rows up to this one are in the log."""
        first = next(iter((*self._flying[:1], *itertools.islice(self._waiting, 1))), None)
        return first is None or first.seq > seq

    def epoch(self, epoch: int, step: int, metrics: Metrics, seconds: float, at_ms: int) -> None:
        self.place = (epoch + 1, 0)
        self._add(EpochEnded(self._next(), epoch, step, metrics, seconds, at_ms))

    def batch(self, epoch: int, step: int, steps: int | None, metrics: Metrics) -> None:
        self.place = (epoch, step)
        self._add(BatchProgress(self._next(), epoch, step, steps, metrics, _now_ms()))

    def line(self, text: str, stream: str) -> None:
        if len(text) > LINE_LIMIT:
            text = text[:LINE_LIMIT] + f" … ({len(text) - LINE_LIMIT} more characters)"
        self._add(LogLine(self._next(), *self.place, redact.clean(text), stream, _now_ms()))

    def flush(self, now_s: float) -> None:
        """Sends what waits, unless a batch is on its way already."""
        if self._flying or not self._waiting or now_s < self._retry_at:
            return
        size = 0
        while self._waiting and size < self._batch_limit:
            row = self._waiting.popleft()
            taken = _size(row)
            size += taken
            self._lasting -= taken if isinstance(row, EpochEnded) else 0
            self._flying.append(row)
        self._bytes -= size
        run_id, n, worker, nonce = self._attempt
        batch = RowBatch(run_id, n, worker, nonce, list(self._flying))
        try:
            self._log.send_rows(batch, lambda error, offset: self._post(lambda: self._delivered(error, offset)))
        except errors.BrokerError as failure:
            self._delivered(failure, -1)

    def _delivered(self, error: errors.BrokerError | None, offset: int) -> None:
        now = time.monotonic()
        if isinstance(error, errors.RecordTooLarge) and self._smaller():
            self._put_back()
        elif error is not None:  # unknown or failed: the same rows again, readers know them by seq
            self._put_back()
            self._retry_at = now + RETRY_S
        else:
            self.last_offset = offset
        self._flying = []
        if error is None and self._lines_gone and self._bytes <= self._limit // 2:
            count, self._lines_gone = self._lines_gone, 0
            self.line(f"{count} lines are missing before this one: Kafka did not take them in time.", "stderr")
        self.flush(now)

    def _put_back(self) -> None:
        self._waiting.extendleft(reversed(self._flying))
        self._bytes += sum(map(_size, self._flying))
        self._lasting += sum(_size(row) for row in self._flying if isinstance(row, EpochEnded))

    def _smaller(self) -> bool:
        """Whether what the broker does not take can be made smaller: fewer rows in a record, then less in the row."""
        if len(self._flying) > 1:
            self._batch_limit = max(1, sum(map(_size, self._flying)) // 2)
            return True
        row = self._flying[0]
        smaller = _cut(row)
        if smaller is None:
            return False
        self._flying = [smaller]
        if not isinstance(row, LogLine) and row.seq not in self._incomplete:
            self._incomplete.add(row.seq)
            self.line(f"Metrics of epoch {row.epoch} are missing here: the record was larger than Kafka takes.", "stderr")
        return True

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _add(self, row: Row) -> None:
        size, lasts = _size(row), isinstance(row, EpochEnded)
        if self._lasting > self._limit * 7 // 8 and not lasts:  # to thin so little again and again costs more than it is worth
            self._gone([row])
            return
        self._waiting.append(row)
        self._bytes += size
        self._lasting += size if lasts else 0
        if self._bytes > self._limit and self._bytes > self._lasting:
            self._thin()
        self.flush(time.monotonic())

    def _thin(self) -> None:
        """Drops the older half of what may be dropped: first the running numbers, then log lines."""
        for kind in (BatchProgress, LogLine):
            droppable = [row for row in self._waiting if isinstance(row, kind)]
            gone = {row.seq: row for row in droppable[: (len(droppable) + 1) // 2]}
            self._waiting = collections.deque(row for row in self._waiting if row.seq not in gone)
            self._bytes = sum(map(_size, self._waiting))
            self._gone(gone.values())
            if self._bytes <= self._limit:
                return

    def _gone(self, rows: Collection[Row]) -> None:
        self.thinned += len(rows)
        self._lines_gone += sum(isinstance(row, LogLine) for row in rows)


def _cut(row: Row) -> Row | None:
    """Half of the text or of the metrics, the first half; None where nothing is left to be cut."""
    if isinstance(row, LogLine):
        left = max(0, len(row.text) // 2 - len(_CUT))
        return None if len(row.text) <= len(_CUT) else msgspec.structs.replace(row, text=row.text[:left] + _CUT)
    if not row.metrics:
        return None
    return msgspec.structs.replace(row, metrics=dict(itertools.islice(row.metrics.items(), len(row.metrics) // 2)))


def _size(row: Row) -> int:
    return _ROW_BYTES + (len(row.text) if isinstance(row, LogLine) else 40 * len(row.metrics))


def _now_ms() -> int:
    return int(time.time() * 1000)
