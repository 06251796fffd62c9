"""A worker that does nothing but write snapshots."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator

from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.protocol import topics
from kafka_jupyter.worker.snapshotter import PERIOD_S, Snapshotter
from tests.support.waiting import wait_until


class Scribe:
    """A worker that does nothing but snapshots, with a clock that the test turns."""

    def __init__(self, log: Log, worker_id: str = "box-1") -> None:
        self.follower = Follower(log, rows=False)
        self._log, self._now_s = log, 0.0
        self._snapshotter = Snapshotter(log, self.follower, worker_id)
        self._changes: queue.SimpleQueue[Change] = queue.SimpleQueue()
        self.follower.subscribe(self._changes.put)
        self.follower.start()

    def round(self) -> None:
        """Reads all there is, lets the time for the next round come, and waits until what it then wrote is acked."""
        with contextlib.closing(Reader(self._log.cluster)) as reader:
            ends = {place: reader.bounds(place)[1] for place in self._log.topics.all_places(topics.RUN_CONTROL)}
        wait_until(lambda: all(self.follower.position(p) >= end for p, end in ends.items()), "the follower stands still", within=60)
        while not self._changes.empty():
            self._snapshotter.saw(self._changes.get())
        self._now_s += PERIOD_S
        for _ in range(2):  # the snapshots, then the mark
            self._snapshotter.tick(self._now_s)
            assert self._log.producer.flush(10) == 0


@contextlib.contextmanager
def scribe(log: Log, worker_id: str = "box-1") -> Iterator[Scribe]:
    made = Scribe(log, worker_id)
    with contextlib.closing(made.follower):
        yield made
