"""Writes snapshots and marks to `run_state`, so that readers start fast (design §2.4). One worker at a time, by rank."""

from __future__ import annotations

import threading

import msgspec

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.producer import Delivered
from kafka_jupyter.protocol import topics
from kafka_jupyter.runs import choose, snapshots
from kafka_jupyter.runs.state import RunState

logger = redact.logger(__name__)

PERIOD_S = 10.0
LONGEST_S = 600.0  # between two tries of a partition that fails again and again
AFTER_RECORDS = 200  # of one partition; fewer are read faster than a snapshot is worth
# A run that lives and says nothing holds every new reader back at its last snapshot: it is written again when the mark is so far ahead.
STALE_RECORDS = 2000


class Snapshotter:
    """Used by the supervisor's loop only. For each partition: snapshots of all runs that changed since the last mark, and when
    all of them are acked, the mark. If one fails there is no mark, and the next round tries again: a mark without it would make
    new readers skip what that run has done."""

    def __init__(self, log: Log, follower: Follower, worker_id: str) -> None:
        self._log, self._follower, self._worker_id = log, follower, worker_id
        self._changed: dict[int, dict[str, RunState]] = {}
        self._upto: dict[int, int] = {}
        self._marked: dict[int, int] = {}
        self._through: dict[str, int] = {}  # run that lives → up to where the last snapshot that we wrote speaks of it
        self._writing: dict[int, _Round] = {}
        self._unmarked: dict[int, tuple[float, float]] = {}  # partitions whose last round failed: how long to wait, and until when
        self._next_s = 0.0

    def saw(self, change: Change) -> None:
        if change.state is not None:
            self._changed.setdefault(change.partition, {})[change.run_id] = change.state
            self._upto[change.partition] = change.offset

    def tick(self, now_s: float) -> None:
        for partition, written in list(self._writing.items()):
            if written.over:
                del self._writing[partition]
                self._finish(partition, written, now_s)
        if now_s < self._next_s:
            return
        self._next_s = now_s + PERIOD_S
        live = [worker.worker_id for worker in self._follower.workers()]
        for partition, upto in self._upto.items():
            marked = self._marked.get(partition, self._follower.beginning.offsets.get(partition, 0) - 1)
            changed = self._changed.get(partition, {})
            if any(state.newer for state in changed.values()):
                continue  # a reader that started behind a record of a newer version would not know that the run has one
            _, not_before_s = self._unmarked.get(partition, (0.0, 0.0))
            due = upto - marked >= AFTER_RECORDS and partition not in self._writing and now_s >= not_before_s
            if due and choose.rank(f"mark/{partition}", self._worker_id, live) == 0:
                states = self._stale(partition, upto) | self._changed.pop(partition, {})
                records = list(snapshots.written(partition, states.values(), upto, self._follower.distrust))
                self._writing[partition] = written = _Round(upto, states, len(records))
                for record in records:
                    self._send(record, written.delivered)

    def _stale(self, partition: int, upto: int) -> dict[str, RunState]:
        """Runs of the partition that live, of which nothing has been written for long."""
        through = self._follower.beginning.through | self._through
        live = [s for s in self._follower.active() if self._log.topics.place(topics.RUN_CONTROL, s.run_id)[1] == partition]
        return {s.run_id: s for s in live if max(s.upto, through.get(s.run_id, -1)) < upto - STALE_RECORDS}

    def _finish(self, partition: int, written: _Round, now_s: float) -> None:
        if written.error is None:
            self._marked[partition] = written.upto
            self._note(written)
            self._unmarked.pop(partition, None)
            mark = snapshots.Mark(partition, written.upto, distrust=self._follower.distrust)
            self._send(mark, None)  # if it is lost, readers start earlier, that is all
            return
        if partition not in self._unmarked:
            logger.warning("no mark for partition %d of run_control: %s", partition, written.error)
        # What is too large today is too large in ten seconds: all would be sent again and again.
        waited_s, _ = self._unmarked.get(partition, (PERIOD_S / 2, 0.0))
        wait_s = min(2 * waited_s, LONGEST_S)
        self._unmarked[partition] = (wait_s, now_s + wait_s)
        self._changed[partition] = written.states | self._changed.get(partition, {})

    def _note(self, written: _Round) -> None:
        for run_id, state in written.states.items():
            if state.terminal:
                self._through.pop(run_id, None)
            else:
                self._through[run_id] = written.upto

    def _send(self, record: snapshots.Record, on_delivery: Delivered | None) -> None:
        try:
            encoded = msgspec.json.encode(record)
            self._log.send(topics.RUN_STATE, snapshots.key_of(record), encoded, snapshots.type_of(record), on_delivery)
        except errors.BrokerError as failure:
            if on_delivery is not None:
                on_delivery(failure, -1)


class _Round:
    """Snapshots on their way. `delivered` is called on the producer's thread."""

    def __init__(self, upto: int, states: dict[str, RunState], records: int) -> None:
        self.upto, self.states = upto, states
        self.error: errors.BrokerError | None = None
        self._left, self._lock = records, threading.Lock()

    @property
    def over(self) -> bool:
        with self._lock:
            return self._left == 0

    def delivered(self, error: errors.BrokerError | None, _offset: int) -> None:
        with self._lock:
            self.error = self.error or error
            self._left -= 1
