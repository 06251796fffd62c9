"""Reading stretches of a partition, one after the other, with a few readers that stay connected."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from kafka_jupyter.brokers.kafka import Cluster, Message, Partition
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.errors import BrokerUnreachable, OffsetGone

POLL = 16  # records taken from the client at once: 8 MiB of chunks
IDLE_READERS = 4  # kept open: a new one costs a connection
PREFETCH_KIB = 16 << 10  # that a reader may hold in advance
# The broker answers a fetch that finds nothing after this. A reader that moves on has to wait for its last fetch: with the
# client's 500 ms every second small artifact took half a second.
FETCH_WAIT_MS = 10


class Scanner:
    """Safe to use from many threads."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._patience_s = max(cluster.settings.connect_timeout_s, cluster.settings.delivery_timeout_s)
        # Of this thread again, perhaps: a scan that an error has left in the middle may be ended by the garbage collector, which
        # comes when it likes, also while we hold the lock.
        self._lock = threading.RLock()
        self._idle: list[tuple[float, Reader]] = []  # with when their last fetch is over, that one first

    def scan(self, place: Partition, start: int | None, until: int | None = None) -> Iterator[Message]:
        """The records with start ≤ offset < until. None means the log's first one, and its end as it is now.

        Raises OffsetGone if the log does not reach from `start` on, BrokerUnreachable if nothing comes for too long.
        """
        with self._reader() as reader:
            low, high = reader.bounds(place)
            position = low if start is None else start
            if not low <= position <= high:
                raise OffsetGone(topic=place[0], partition=place[1], offset=position)
            end = high if until is None else min(high, until)
            if position >= end:
                return
            reader.assign({place: position})
            heard = time.monotonic()
            while position < end:
                for message in reader.poll(0.2, limit=POLL):
                    position = message.offset + 1
                    if message.offset < end:
                        yield message
                    heard = time.monotonic()
                if time.monotonic() - heard > self._patience_s:
                    detail = f"(no record of {place[0]} came in {self._patience_s:g} s. {reader.trouble})"
                    raise BrokerUnreachable(servers=self._cluster.servers, detail=detail)

    def close(self) -> None:
        with self._lock:
            readers, self._idle = self._idle, []
        for _, reader in readers:
            reader.close()

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Reader]:
        """For one thread at a time. One that met trouble is not used again."""
        with self._lock:
            # Two scans in a row need not wait for each other's last fetch: the second one takes another reader.
            rested = bool(self._idle) and (self._idle[0][0] <= time.monotonic() or len(self._idle) == IDLE_READERS)
            reader = self._idle.pop(0)[1] if rested else None
        reader = reader or Reader(self._cluster, prefetch_kib=PREFETCH_KIB, fetch_wait_max_ms=FETCH_WAIT_MS)
        sound = False
        try:
            yield reader
            sound = True
        except GeneratorExit:  # whoever reads has what it wants
            sound = True
            raise
        finally:
            if sound:
                reader.assign({})  # it would read on, for nobody
                with self._lock:
                    sound = len(self._idle) < IDLE_READERS
                    if sound:
                        self._idle.append((time.monotonic() + FETCH_WAIT_MS / 1000, reader))
            if not sound:
                reader.close()
