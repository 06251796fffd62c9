"""Writes snapshots and marks to `run_state`, so that readers start fast (design §2.4). One worker at a time, by rank."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from kafka_jupyter import errors
from kafka_jupyter.brokers.follow import Change, Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.producer import Delivered
from kafka_jupyter.protocol import topics
from kafka_jupyter.runs import choose, snapshots
from kafka_jupyter.runs.state import RunState

logger = logging.getLogger(__name__)

PERIOD_S = 10.0
AFTER_RECORDS = 200  # of one partition; fewer are read faster than a snapshot is worth


class Snapshotter:
    """Used by the supervisor's loop only. For each partition: snapshots of all runs that changed since the last mark, and when
    the last of them is acked, the mark."""

    def __init__(self, log: Log, follower: Follower, worker_id: str) -> None:
        self._log, self._follower, self._worker_id = log, follower, worker_id
        self._changed: dict[int, dict[str, RunState]] = {}
        self._upto: dict[int, int] = {}
        self._marked: dict[int, int] = {}
        self._next_s = 0.0

    def saw(self, change: Change) -> None:
        if change.state is not None:
            self._changed.setdefault(change.partition, {})[change.run_id] = change.state
            self._upto[change.partition] = change.offset

    def tick(self, now_s: float) -> None:
        if now_s < self._next_s:
            return
        self._next_s = now_s + PERIOD_S
        live = [worker.worker_id for worker in self._follower.workers()]
        for partition, upto in self._upto.items():
            marked = self._marked.get(partition, self._follower.beginning.offsets.get(partition, 0) - 1)
            changed = self._changed.get(partition, {})
            if any(state.newer for state in changed.values()):
                continue  # a reader that started behind a record of a newer version would not know that the run has one
            if upto - marked >= AFTER_RECORDS and choose.rank(f"mark/{partition}", self._worker_id, live) == 0:
                self._marked[partition] = upto
                self._write(partition, self._changed.pop(partition, {}), upto)

    def _write(self, partition: int, states: dict[str, RunState], upto: int) -> None:
        """A failed delivery leaves the mark where it is: readers start earlier, that is all."""
        acks = _Countdown(len(states), lambda: self._send(snapshots.Mark(partition, upto), None))
        for state in states.values():
            self._send(snapshots.Snapshot(partition, state), acks.delivered)

    def _send(self, record: snapshots.Snapshot | snapshots.Mark, on_delivery: Delivered | None) -> None:
        try:
            self._log.send(topics.RUN_STATE, snapshots.key_of(record), msgspec.json.encode(record), on_delivery)
        except errors.BrokerError as failure:
            logger.debug("snapshot not sent: %s", failure)


class _Countdown:
    """Calls `then` when `count` deliveries have succeeded."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left, self._then, self._lock = count, then, threading.Lock()

    def delivered(self, error: errors.BrokerError | None, _offset: int) -> None:
        if error is None:
            with self._lock:
                self._left -= 1
                done = self._left == 0
            if done:
                self._then()
