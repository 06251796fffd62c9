"""Which workers have announced themselves, and when by our own clock."""

from __future__ import annotations

from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.trust.judge import Origin

ALIVE_PERIODS = 3  # a worker is alive if its record was renewed within so many of its periods


class Announced:
    """Not thread-safe: its owner holds the lock."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[WorkerInfo, float]] = {}
        self._said_ms: dict[str, int] = {}  # worker id → when it signed what we know of it, by its clock

    def take(self, info: WorkerInfo, origin: Origin, seen_s: float) -> bool:
        """Whether it was news."""
        if not self._is_news(info.worker_id, origin):
            return False
        self._known[info.worker_id] = (info, seen_s)
        return True

    def bury(self, worker_id: str, origin: Origin) -> bool:
        """A worker has said goodbye. Whether that was news."""
        if not self._is_news(worker_id, origin):
            return False
        self._known.pop(worker_id, None)
        return True

    def alive(self, now_s: float) -> list[WorkerInfo]:
        return [info for info, seen_s in self._known.values() if now_s - seen_s <= ALIVE_PERIODS * info.period_s]

    def _is_news(self, worker_id: str, origin: Origin) -> bool:
        """Whether its worker has said it after all we know of it: a copy of an old announcement makes nobody look alive."""
        if origin.proved and origin.issued_ms <= self._said_ms.get(worker_id, 0):
            return False
        self._said_ms[worker_id] = origin.issued_ms
        return True
