"""Tally: what a list shows of a run's history, kept as its rows come, so that a list of many runs never adds up rows again. Pure."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from typing import Any

from kafka_jupyter.protocol.rows import EpochEnded, Metrics
from kafka_jupyter.runs.view import grows

PACE_EPOCHS = 5  # the first one compiles, and there are hiccups: the middle one of the last few says how long an epoch takes
NO_GOAL = ("lr", "learning_rate")  # neither more nor less of them is better


class Tally:
    """Of finished epochs in the order of their epoch: how many, the last metrics, each metric's best with its epoch, and the pace."""

    def __init__(self, epochs: Iterable[EpochEnded] = ()) -> None:
        self._done = 0
        self._metrics: Metrics = {}
        self._best: dict[str, tuple[float, int]] = {}
        self._seconds: deque[float] = deque(maxlen=PACE_EPOCHS)
        self._at_ms = 0
        for row in epochs:
            self.add(row)

    def add(self, row: EpochEnded) -> None:
        if row.epoch + 1 >= self._done:
            self._done, self._metrics, self._at_ms = row.epoch + 1, row.metrics, row.at_ms
        if row.seconds > 0:
            self._seconds.append(row.seconds)
        for name, value in row.metrics.items():
            if value is None or name in NO_GOAL:
                continue
            best = self._best.get(name)
            if best is None or (value > best[0] if grows(name) else value < best[0]):
                self._best[name] = (value, row.epoch + 1)

    def as_json(self) -> dict[str, Any]:
        """`best`: metric → [value, 1-based epoch]. `seconds`: of one epoch, 0 if unknown. `at_ms`: the worker's clock at the last one."""
        seconds = statistics.median(self._seconds) if self._seconds else 0.0
        return {"done": self._done, "metrics": self._metrics, "best": self._best, "seconds": seconds, "at_ms": self._at_ms}
