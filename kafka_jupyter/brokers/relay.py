"""Relay: reads as Reader does; a hasty reader catches up, a steady one takes over.

Where the rows of the active runs begin is known only when the control records have been read. A broker answers one connection in order,
so whoever asks a reader for more places waits for its fetch in flight, which finds nothing: the client's 500 ms (`fetch.wait.max.ms`) at
each start of a command, a kernel or a server. No client can change its patience, so a second one has less of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping

from kafka_jupyter.brokers.kafka import Cluster, Message, Partition
from kafka_jupyter.brokers.reader import Reader

HASTE_MS = 10  # after which a broker answers a fetch of the hasty one that finds nothing
# The first fetch of the steady one may be for some of its places only; records of the others come behind it. For so long, more than the
# client's 500 ms, the hasty one reads on.
HANDOVER_S = 0.8
BRIEFLY_S = 0.02  # a poll cannot be woken: who closes us waits for it, and a short command that has its answer is over before the handover


class Relay:
    """Reads named partitions from named offsets, each record once. Not for use by two threads at once, `trouble` excepted."""

    def __init__(self, cluster: Cluster, asked: Iterable[Partition]) -> None:
        """`asked`: a place of each topic. Raises BrokerError."""
        with contextlib.ExitStack() as undoing:
            self._steady = Reader(cluster)
            undoing.callback(self._steady.close)
            for place in asked:
                self._steady.bounds(place)  # it is connected then and knows who leads: at its turn it fetches at once
            # Made and asked one after the other: the client sends a question that comes in the middle of its own greeting to a connection
            # that it is about to give up, and sends it again after 0.7 s.
            self._hasty: Reader | None = Reader(cluster, fetch_wait_max_ms=HASTE_MS)
            undoing.pop_all()
        self._next: dict[Partition, int] = {}
        self._handover_s: float | None = None  # of time.monotonic; until `settle` there is none

    @property
    def trouble(self) -> str:
        """As Reader's."""
        return (self._hasty or self._steady).trouble

    def bounds(self, place: Partition) -> tuple[int, int]:
        """As Reader's. To be asked before anything is read: it would wait behind a fetch as well."""
        return (self._hasty or self._steady).bounds(place)

    def since(self, place: Partition, time_ms: int) -> int:
        """As Reader's, and as early."""
        return (self._hasty or self._steady).since(place, time_ms)

    def assign(self, places: Mapping[Partition, int]) -> None:
        """Reads on from these offsets."""
        assert self._hasty is not None
        self._next = dict(places)
        self._hasty.assign(places)

    def add(self, places: Mapping[Partition, int]) -> None:
        """Until `settle`."""
        assert self._hasty is not None
        self._next |= places
        self._hasty.add(places)

    def settle(self) -> None:
        """We have caught up and know all our places: the steady one follows from where we are."""
        self._steady.assign(self._next)
        self._handover_s = time.monotonic() + HANDOVER_S

    def poll(self, timeout_s: float) -> list[Message]:
        """As Reader's; may come back earlier."""
        if self._hasty is not None and self._handover_s is not None and time.monotonic() >= self._handover_s:
            self._hasty.close()
            self._hasty = None
        if self._hasty is None:
            messages = self._steady.poll(timeout_s)
        else:
            messages = self._hasty.poll(min(timeout_s, BRIEFLY_S))
            if self._handover_s is None:
                self._steady.idle()
        return [message for message in messages if self._is_new(message)]

    def _is_new(self, message: Message) -> bool:
        """Not so what the hasty one has brought already."""
        place = (message.topic, message.partition)
        if message.offset < self._next[place]:
            return False
        self._next[place] = message.offset + 1
        return True

    def close(self) -> None:
        if self._hasty is not None:
            self._hasty.close()
        self._steady.close()
