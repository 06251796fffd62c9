"""What a client that comes back has missed: from memory where that reaches back far enough, otherwise from Kafka."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.errors import OffsetGone
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.cursor import CONTROL, LOG, Cursor
from kafka_jupyter.protocol.rows import RowBatch
from kafka_jupyter.runs import view
from kafka_jupyter.server import events
from kafka_jupyter.server.delivery import Attempt, Release, Rows, deliver, skip
from kafka_jupyter.server.limits import Limits

Wants = Callable[[str, events.Event], bool]  # of a run, this event?


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """An attempt that started, as a run's state has it."""

    attempt: Attempt
    partition: int
    offset: int  # of its Started, in `run_control`
    log_offset: int  # its rows begin here or behind
    log_end: int | None  # of a run's last attempt, once it has ended: its last row


@dataclasses.dataclass(frozen=True)
class Missed:
    """One moment of the reader, and a cursor that lies behind it."""

    cursor: Cursor
    positions: Mapping[tuple[str, int], int]  # by (letter, partition)
    floors: Mapping[int, int]  # by partition of `training_log`: what is in memory begins here
    recent: list[Rows]  # what is in memory
    starts: list[Started]  # of the runs that the client wants

    def ranges(self) -> dict[int, tuple[int, int]]:
        """What has to be read from Kafka: partition → (first offset, offset behind the last)."""
        found = {}
        for partition, floor in self.floors.items():
            first = min((self._first_needed(start) for start in self.starts if start.partition == partition), default=floor)
            if first < floor:
                found[partition] = (first, floor)
        return found

    def _first_needed(self, start: Started) -> int:
        """Where the rows begin that this client still wants of an attempt."""
        told, read = self._known(start.partition), self.cursor.offsets[(LOG, start.partition)]
        if start.offset >= told:
            return start.log_offset  # it has not been told that this attempt started
        if start.log_end is not None and start.log_end < read:
            return self.positions[(LOG, start.partition)]  # it has had the last one
        return max(read, start.log_offset)

    def _known(self, partition: int) -> int:
        return self.cursor.offsets[(CONTROL, partition)]

    def events_with(self, older: Iterable[Rows], wanted: Wants) -> Iterator[events.Event]:
        """In an order in which each event's cursor says exactly what came before it. `older`: what `ranges` named. `wanted`: of a run,
        which events."""
        known = {start.attempt: start for start in self.starts}
        rows: dict[int, list[Rows]] = {partition: [] for partition in self.floors}
        for row in [*older, *self.recent]:
            if row.attempt in known:
                rows[row.partition].append(row)
        for partition, there in rows.items():
            there.sort(key=lambda row: row.offset)
            yield from (event for run_id, event in self._of(partition, there, known) if wanted(run_id, event))

    def _of(self, partition: int, rows: list[Rows], known: Mapping[Attempt, Started]) -> Iterator[tuple[str, events.Event]]:
        told, read = (CONTROL, partition), (LOG, partition)
        starts = sorted((start for start in known.values() if start.partition == partition), key=lambda start: start.offset)
        if self.cursor.part(told):  # cut off in the middle of a Release: its rows are those that had been read by then
            for start in starts:
                if start.offset == self.cursor.offsets[told]:
                    yield from self._release(start, [row for row in rows if row.offset < self.cursor.offsets[read]])
        begin = self.cursor.offsets[read]
        for row in rows:
            if row.offset >= begin:
                if known[row.attempt].offset < self._known(partition):
                    yield from ((row.attempt[0], event) for event in deliver(dataclasses.replace(row, started=True), self.cursor))
                else:
                    skip(row, self.cursor)
        self.cursor.set(read, self.positions[read])
        for start in starts:
            if self._known(partition) <= start.offset < self.positions[told]:
                yield from self._release(start, rows)
        self.cursor.set(told, self.positions[told])

    def _release(self, start: Started, rows: list[Rows]) -> Iterator[tuple[str, events.Event]]:
        records = tuple(row for row in rows if row.attempt == start.attempt)
        release = Release(start.partition, start.offset, start.attempt, records)
        yield from ((start.attempt[0], event) for event in deliver(release, self.cursor))


def told(missed: Missed, wanted: Wants, log: Log, limits: Limits, folder: pathlib.Path) -> IO[bytes]:
    """All of it that is `wanted` as bytes to be sent; the cursor of `missed` stands behind it then. Waits for Kafka.

    A client that takes nothing would hold all it has missed, so more than a chunk of it lies in a file without a name in `folder`.
    Raises OffsetGone if retention took some of it or it is too much to be told, BrokerError, OSError.
    """
    ranges = missed.ranges()
    if sum(end - first for first, end in ranges.values()) > limits.replay_records:
        raise OffsetGone(topic=topics.TRAINING_LOG)
    older = read(log, ranges, missed.starts, limits.replay_bytes)
    file: IO[bytes] = tempfile.SpooledTemporaryFile(limits.chunk_bytes, dir=_usable(folder))  # noqa: SIM115  # whoever sends it closes it
    try:
        for event in missed.events_with(older, wanted):
            file.writelines(event.parts())
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _usable(folder: pathlib.Path) -> str | None:
    """None, which is the system's own folder for such files (it may be in memory), where this one cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder)


def read(log: Log, ranges: Mapping[int, tuple[int, int]], starts: Iterable[Started], limit: int) -> list[Rows]:
    """The rows of these attempts in these ranges. Raises OffsetGone if retention took some or they are more bytes than `limit`."""
    wanted = {start.attempt: start for start in starts}
    found: list[Rows] = []
    size = 0
    for partition, (first, end) in ranges.items():
        place = (log.topics.name(topics.TRAINING_LOG), partition)
        low = _low(log, place)
        if first < low:
            raise OffsetGone(topic=place[0], partition=partition, offset=first)
        records = list(_records(log, place, first, end, wanted))
        # A row may stand in the log twice. Whether it did is seen only from where its attempt began.
        rows = view.RowLog()
        seen = {attempt for _, attempt, _ in records}
        begins = min((wanted[attempt].log_offset for attempt in seen), default=first)
        for _, attempt, batch in _records(log, place, begins, first, wanted):
            if attempt in seen:
                rows.add(_renamed(batch), attempt[-1])
        for offset, attempt, batch in records:
            new = rows.add(_renamed(batch), attempt[-1])
            if new:
                found.append(Rows(partition, offset, attempt, True, events.bodies(batch, new)))
                size += found[-1].size
                if size > limit:
                    raise OffsetGone(topic=place[0], partition=partition, offset=first)
    return found


def _renamed(batch: RowBatch) -> RowBatch:
    """One RowLog is one run's; here it serves many."""
    return RowBatch(batch.run_id, batch.n, f"{batch.run_id}/{batch.worker}", batch.nonce, batch.rows)


def _records(
    log: Log, place: tuple[str, int], first: int, end: int, wanted: Mapping[Attempt, Started]
) -> Iterator[tuple[int, Attempt, RowBatch]]:
    if first >= end:
        return
    for message in log.read_range(place, first, end):
        found = log.read(message)
        if found is not None and isinstance(record := found.record, RowBatch):
            attempt = (record.run_id, record.n, record.worker, record.nonce, found.origin.kid)
            if attempt in wanted:
                yield message.offset, attempt, record


def _low(log: Log, place: tuple[str, int]) -> int:
    reader = Reader(log.cluster)
    try:
        return reader.bounds(place)[0]
    finally:
        reader.close()
