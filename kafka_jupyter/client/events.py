"""What happens to a run, one event after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import time
from collections.abc import Iterator

from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, LogLine, Metrics, Row
from kafka_jupyter.runs.state import TERMINAL, State
from kafka_jupyter.runs.view import numbers

LOOK_S = 1.0  # without news, between two looks whether anybody still reads
_BEFORE = frozenset({State.CLAIMED, State.RUNNING})  # what comes before the rows that are new with it


@dataclasses.dataclass(frozen=True)
class RunEvent:
    """`kind`: "state", "epoch", "batch", "line" or "applied" (`metrics`: the settings that hold from there on). `epoch` is 0-based,
    `step` counts the batches done in it. `seq` names an epoch, batch or line within its attempt; `at_ms` is the clock of its worker,
    `seconds` what an epoch took, `stream` where a line was printed ("stdout" or "stderr")."""

    kind: str
    state: State
    attempt: int = 0
    epoch: int = 0
    step: int = 0
    metrics: Metrics = dataclasses.field(default_factory=dict)
    text: str = ""
    seq: int = 0
    at_ms: int = 0
    seconds: float = 0.0
    stream: str = ""


def of(follower: Follower, run_id: str, deadline: float | None = None) -> Iterator[RunEvent | None]:
    """From the run's start to its end; a last None where `deadline` (of time.monotonic) comes first. Raises what ended the reading."""
    news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def listen(change: Change) -> None:
        if change.run_id == run_id:
            news.put(None)

    leave = follower.subscribe(listen)
    try:
        yield from _all(follower, run_id, news, deadline)
    finally:
        leave()


def _all(follower: Follower, run_id: str, news: queue.SimpleQueue[None], deadline: float | None) -> Iterator[RunEvent | None]:
    seen: set[tuple[int, int]] = set()
    answered = 0
    last: State | None = None
    while True:
        state = follower.state(run_id)
        over = state is not None and state.terminal and follower.has_all_rows(run_id)
        now = state.state if state is not None else State.QUEUED
        if now is not last and now not in TERMINAL and (last is None or now in _BEFORE):
            last = now
            yield RunEvent("state", now, state.last_n if state else 0)
        for attempt, row in follower.history(run_id).rows if state is not None else ():
            if (attempt, row.seq) not in seen:
                seen.add((attempt, row.seq))
                yield of_row(attempt, row, now)
        for answer in state.applications[answered:] if state is not None else ():
            answered += 1
            yield applied(answer, now)
        if now is not last and (over or now not in TERMINAL):
            last = now
            yield RunEvent("state", now, state.last_n if state else 0)
        if over:
            return
        left = LOOK_S if deadline is None else min(LOOK_S, deadline - time.monotonic())
        if left <= 0:
            yield None
            return
        with contextlib.suppress(queue.Empty):
            news.get(timeout=left)
            while True:  # one look answers all that has come: each goes through the whole history
                news.get_nowait()
        if not follower.alive:
            raise follower.log.cluster.unreachable()


def of_row(attempt: int, row: Row, state: State) -> RunEvent:
    event = RunEvent("batch", state, attempt, row.epoch, row.step, seq=row.seq, at_ms=row.at_ms)
    if isinstance(row, LogLine):
        return dataclasses.replace(event, kind="line", text=row.text, stream=row.stream)
    if isinstance(row, BatchProgress):
        return dataclasses.replace(event, metrics=dict(row.metrics))
    assert isinstance(row, EpochEnded)
    return dataclasses.replace(event, kind="epoch", metrics=dict(row.metrics), seconds=row.seconds)


def applied(answer: control.Applied, state: State) -> RunEvent:
    return RunEvent("applied", state, answer.n, answer.epoch, answer.step, dict(numbers(answer.settings)))
