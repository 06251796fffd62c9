"""Which waiting runs this worker goes for, and when (design §2.3). Decides only; the supervisor sends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from kafka_jupyter.brokers.kafka import Partition
from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs import choose
from kafka_jupyter.runs.state import RunState

# Seconds that a worker with a trouble of its own claims nothing: twice as long each time in a row, up to the second figure. Else it
# would take one waiting run after the other, only to leave it again.
REST_S, LONGEST_REST_S = 1.0, 60.0


@dataclasses.dataclass(frozen=True)
class Choice:
    """Runs to claim now; `next_s` is when the next one is due (monotonic seconds), if any."""

    runs: list[RunState]
    next_s: float | None


class Claims:
    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._since: dict[tuple[str, int], float] = {}  # (run id, last_n) → since when we see it waiting
        self._rest_s = self._rest_until_s = 0.0

    def saw_end(self, healthy: bool | None, now_s: float) -> None:
        """An attempt of ours is over, which has shown that we can do our part, or that we cannot; None: neither."""
        if healthy:
            self._rest_s = 0.0
        elif healthy is False:
            self._rest_s = min(max(2 * self._rest_s, REST_S), LONGEST_REST_S)
            self._rest_until_s = now_s + self._rest_s

    def choose(
        self, waiting: Iterable[RunState], me: WorkerInfo, live: list[WorkerInfo], owned: set[Partition], free: int, now_s: float
    ) -> Choice:
        """Of the waiting runs, in their order, those that are due and for which there is a free slot."""
        now_waiting: dict[tuple[str, int], float] = {}
        chosen: list[RunState] = []
        next_s: float | None = None
        for state in waiting:
            key = (state.run_id, state.last_n)
            now_waiting[key] = self._since.get(key, now_s)
            if not self._suits(state, me):
                continue
            rivals = [other.worker_id for other in live if other.free > 0 and self._suits(state, other)]
            owner = state.task is not None and (state.task.topic, state.task.partition) in owned
            delay_s = choose.claim_delay(owner, choose.rank(state.run_id, me.worker_id, rivals), self._grace_s)
            due = max(now_waiting[key] + delay_s, self._rest_until_s)
            if len(chosen) >= free:
                continue
            if due <= now_s:
                chosen.append(state)
            else:
                next_s = due if next_s is None else min(next_s, due)
        self._since = now_waiting
        return Choice(chosen, next_s)

    @staticmethod
    def _suits(state: RunState, worker: WorkerInfo) -> bool:
        needs = state.submitted.requirements if state.submitted else Requirements()
        return state.task is not None and worker.worker_id not in state.unfit and not choose.unmet(needs, worker)
