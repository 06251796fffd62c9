"""R6: what a crash costs where a checkpoint is written at the end of every epoch; what it leaves in the store; and hangs, which end.

The store is Kafka itself, as it is where nothing else is set.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import random
import signal
import time
from collections.abc import Iterator

from tests.faults.acceptance import Span
from tests.faults.brokers import Brokers
from tests.faults.checker import Verdict
from tests.faults.crew import Post, alive
from tests.faults.figures import Budget, Figure, percentile
from tests.faults.stage import READY_S, Stage, Tiny
from tests.faults.uploads import Shelf, shelf
from tests.support.pace import paced
from tests.support.training import ENDLESS

RUNS = 4
KILLS = 3  # of the same runs
STALL_S = 8.0  # more than the first step of four trainings side by side takes
HUNG_S = STALL_S + 5.0
KEPT = 3
EVERY_EPOCH = {
    "KAFKA_JUPYTER_CHECKPOINT_GAP_S": "0",
    "KAFKA_JUPYTER_CHECKPOINT_SHARE": "1",
    "KAFKA_JUPYTER_STALL_TIMEOUT_S": f"{STALL_S:g}",
}


@contextlib.contextmanager
def careful_workers(brokers: Brokers, folder: pathlib.Path, seed: int) -> Iterator[Stage]:
    """Two that write a checkpoint at the end of every epoch, and end what makes no step for STALL_S."""
    posts = [Post(slots=RUNS, module="tests.faults.worker")] * 2
    with contextlib.closing(Stage("careful", brokers, folder, posts, seed, EVERY_EPOCH)) as stage:
        stage.workers_there()
        yield stage


def tidy(stage: Stage, seed: int, budget: Budget) -> list[Figure]:
    """A run of `budget.count` checkpoints."""
    before = _all(shelf(stage.look()))
    run_id = stage.submit(Tiny("many", rows=800, epochs=budget.count + 1, batch_size=8).one(seed=seed))
    stage.until(lambda: stage.ended(run_id), f"{run_id} does not end", budget.seconds + 120.0)
    stage.until(lambda: _others(shelf(stage.look()), before) == 0, "what is superseded is not deleted", 20.0)
    verdict = stage.judge()
    run = verdict.runs[run_id]
    accepted = sum(entry.type == "checkpointed" for entry in run.accepted)
    left = len(_all(shelf(verdict)) - before) - 1  # the result
    count = f"{accepted} checkpoints of {budget.count}, {len(run.spans)} attempts"
    enough = accepted > budget.count / 2  # a store that is slower than the epochs gets the newest
    what = f"checkpoints left in the store by a run of {budget.count}"
    return [Figure("disk", what, f"≤ {KEPT}", str(left), count, 0 < left <= KEPT and enough)]


def _all(found: Shelf) -> set[str]:
    return found.kept | found.superseded | found.orphans


def _others(found: Shelf, before: set[str]) -> int:
    return len((found.superseded | found.orphans) - before)


def crashes(stage: Stage, seed: int, budget: Budget) -> list[Figure]:
    """kill -9, now of one worker, now of the other, at any moment of an epoch."""
    chance, begin_s = random.Random(seed), stage.clock.now_s
    # An epoch of two seconds: a checkpoint is stored by then. Steps are a fifth of it, where kills between two batches fall; what comes of
    # a kill at any step is for twins.py to show.
    slow = Tiny("slow", rows=400, epochs=ENDLESS, batch_size=2, callbacks=[paced(1.6)])
    killed: dict[tuple[str, int], int] = {}  # when
    rounds = 0
    while len(killed) < budget.count and (not rounds or stage.clock.now_s - begin_s < budget.seconds):
        rounds += 1
        runs = [stage.submit(slow.one()) for _ in range(RUNS)]
        for _ in range(KILLS):
            killed |= _killed(stage, runs, chance.uniform(0.0, 4.0))
            if len(killed) >= budget.count:
                break
        for run_id in runs:
            stage.client.attach(run_id).stop()
        stage.until(lambda ids=runs: all(map(stage.ended, ids)), f"{runs} do not stop", 60.0)  # type: ignore[misc]
    verdict = stage.judge()
    way_ms = max(way for run in verdict.runs.values() for way in _ways_ms(verdict, run.run_id))
    repeated = [_repeated(verdict, run_id, n, math.inf) for run_id, n in killed]
    in_time = max(_repeated(verdict, run_id, n, at_ms - way_ms) for (run_id, n), at_ms in killed.items())
    told = f"{in_time} (with those that ended in the last {way_ms / 1000:.2f} s: {max(repeated)}, mean {sum(repeated) / len(repeated):.2f})"
    elsewhere = [what for run_id, n in sorted(killed) for what in _elsewhere(verdict, run_id, n)]
    found = shelf(verdict)
    left = f"{len(found.orphans)} named by nobody, {len(found.superseded)} superseded"
    count = f"{len(killed)} attempts killed"
    return [
        Figure(
            "R6",
            "epochs repeated after a crash, a checkpoint an epoch, max of those that ended more than a checkpoint's way before",
            "≤ 1",
            told,
            count,
            in_time <= 1,
        ),
        Figure(
            "R6", "attempts that went on elsewhere than at the last checkpoint", "0", "; ".join(elsewhere[:3]) or "0", count, not elsewhere
        ),
        Figure("disk", "left by kills besides what is kept", "shown only", left, f"{count}, {len(found.kept)} kept", True),
    ]


def _killed(stage: Stage, runs: list[str], after_s: float) -> dict[tuple[str, int], int]:
    """Kills the worker with the most of them; the attempts it had, and when (ms)."""
    stage.workers_there()
    for run_id in runs:
        _behind(stage, run_id, 0)
    stage.clock.wait_for(stage.clock.now_s + after_s)
    where = {run_id: stage.post_of(run_id) for run_id in runs}
    post = max((p for p in where.values() if p is not None), key=list(where.values()).count)
    now_ms = time.time_ns() // 1_000_000
    victims = {(run_id, _attempt(stage, run_id)): now_ms for run_id in runs if where[run_id] == post and _trains(stage, run_id)}
    stage.note(f"kill w{post} with {sorted(victims)}")
    stage.crew.kill(post)
    for run_id, n in victims:
        _behind(stage, run_id, n)
    return victims


def _behind(stage: Stage, run_id: str, n: int) -> None:
    """Until an attempt after this one trains."""

    def behind() -> bool:
        attempt = _attempt(stage, run_id)
        return attempt > n and any(of == attempt for of, _ in stage.follower.history(run_id).rows)

    stage.until(behind, f"{run_id} does not go on after attempt {n}", READY_S)


def _trains(stage: Stage, run_id: str) -> bool:
    state = stage.state(run_id)
    return state is not None and state.open is not None and state.open.started


def _attempt(stage: Stage, run_id: str) -> int:
    state = stage.state(run_id)
    return state.last_n if state is not None else 0


def _repeated(verdict: Verdict, run_id: str, n: int, before_ms: float) -> int:
    """Epochs that this attempt had ended before that, by the log, and that the next one trained again."""
    span, after = _pair(verdict, run_id, n)
    ended = _epoch_ends_ms(verdict, run_id, span)
    return sum(epoch >= _place(after)[0] and at_ms < before_ms for epoch, at_ms in ended.items())


def _epoch_ends_ms(verdict: Verdict, run_id: str, span: Span) -> dict[int, int]:
    batches = [batch for _, batch in verdict.logs[run_id].rows if span.is_of(batch)]
    return {row["epoch"]: row["at_ms"] for batch in batches for row in batch["rows"] if row["type"] == "epoch"}


def _ways_ms(verdict: Verdict, run_id: str) -> Iterator[int]:
    """From the end of an epoch to the accepted record of its checkpoint."""
    run = verdict.runs[run_id]
    for span in run.spans:
        ended = _epoch_ends_ms(verdict, run_id, span)
        for entry in run.accepted:
            if entry.type == "checkpointed" and span.is_of(entry.record) and entry.record.get("step", 0) == 0:
                yield entry.time_ms - ended[entry.record["epoch"] - 1]


def _elsewhere(verdict: Verdict, run_id: str, n: int) -> list[str]:
    _, after = _pair(verdict, run_id, n)
    before = [e.record for e in verdict.runs[run_id].accepted if e.type == "checkpointed" and e.offset < after.opened]
    last = (before[-1]["epoch"], before[-1]["step"]) if before else (0, 0)
    return [] if _place(after) == last else [f"{run_id}: attempt {after.n} at {_place(after)}, not at {last}"]


def _pair(verdict: Verdict, run_id: str, n: int) -> tuple[Span, Span]:
    """An attempt, and the next one that started."""
    spans = [span for span in verdict.runs[run_id].spans if span.started is not None]
    index = next(i for i, span in enumerate(spans) if span.n == n)
    return spans[index], spans[index + 1]


def _place(span: Span) -> tuple[int, int]:
    assert span.started is not None
    return int(span.started.record.get("epoch", 0)), int(span.started.record.get("step", 0))


def hangs(stage: Stage, seed: int, budget: Budget) -> list[Figure]:
    """A child that is stopped is ended and its run goes on elsewhere; a training that hangs in every attempt is DEAD and says so."""
    begin_s, tiny = stage.clock.now_s, Tiny("hangs", rows=800, epochs=ENDLESS, batch_size=8)
    endless = stage.submit(Tiny("endless").one(labels={"poison": "endless-step"}))
    stopped: list[str] = []
    took_s: list[float] = []
    while len(stopped) < budget.count and (not stopped or stage.clock.now_s - begin_s < budget.seconds):
        runs = [stage.submit(tiny.one()) for _ in range(2)]
        pids: dict[str, tuple[int, float]] = {}
        for run_id in runs:
            stage.running(run_id)
            pids[run_id] = stage.child_of(run_id), stage.clock.now_s
            stage.note(f"SIGSTOP to the child of {run_id}")
            os.kill(pids[run_id][0], signal.SIGSTOP)
        for run_id, (pid, at_s) in pids.items():
            stage.until(lambda pid=pid: not alive(pid), f"the child of {run_id} hangs on", 30.0)  # type: ignore[misc]
            took_s.append(stage.clock.now_s - at_s)
        for run_id in runs:
            stage.running(run_id, attempt=2)
            stage.client.attach(run_id).stop()
        stage.until(lambda ids=runs: all(map(stage.ended, ids)), f"{runs} do not stop", 60.0)  # type: ignore[misc]
        stopped += runs
    verdict = stage.judge()
    wrong = [what for run_id in stopped for what in _not(verdict, run_id, "SUCCEEDED", 1)] + _not(verdict, endless, "DEAD", 3)
    if "no step" not in str(stage.client.attach(endless).card()["error"]):
        wrong.append(f"{endless} does not say why")
    count = f"{len(stopped)} children stopped, 1 training whose first step never ends"
    longest = percentile(took_s, 1.0)
    return [
        Figure("stall", "hangs that ended otherwise than they must", "0", "; ".join(wrong[:3]) or "0", count, not wrong),
        Figure(
            "stall",
            f"a child that makes no step for {STALL_S:g} s is dead, max",
            f"≤ {HUNG_S:g} s",
            f"{longest:.2f} s",
            count,
            longest <= HUNG_S,
        ),
    ]


def _not(verdict: Verdict, run_id: str, state: str, stalls: int) -> list[str]:
    run = verdict.runs[run_id]
    failures = [entry.record["reason"] for entry in run.accepted if entry.type == "failed"]
    right = (run.state, failures) == (state, ["stall"] * stalls)
    return [] if right else [f"{run_id} is {run.state} after the failures {failures}"]
