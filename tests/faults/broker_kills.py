"""R9: of three brokers one is killed every 30 s, while long runs train and short ones come; then all of them are away."""

from __future__ import annotations

import contextlib
import pathlib
import time

from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.topics import partition_of
from tests.faults.brokers import Brokers
from tests.faults.checker import Verdict
from tests.faults.crew import Post
from tests.faults.figures import Budget, Figure, percentile
from tests.faults.stage import Stage, Tiny

PARTITIONS = 3
STALL_S = 10.0
APART_MS = 1000  # what was made right before the next kill waits for that one
MEMORY = 64 << 20  # that a supervisor may grow by
AWAY_S = 605.0  # all brokers, in the whole property: more than ten minutes, less than `outage_grace_s`


def broker_kills(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget, every_s: float = 30.0) -> list[Figure]:
    """`budget.count` kills, each of the broker that leads most."""
    posts = [Post(slots=3), Post(slots=3)]
    with contextlib.closing(Stage("nodes", brokers, folder, posts, seed)) as stage:
        stage.workers_there()
        long, tiny = stage.endless("long"), Tiny()
        wanted = [next(i for i in iter(lambda: ids.new_run_id("long"), "") if partition_of(i, PARTITIONS) == p) for p in range(PARTITIONS)]
        runs = [stage.submit(long.one(run_id=run_id)) for run_id in wanted]
        for run_id in runs:
            stage.running(run_id)
        memory = stage.crew.memory()
        away_s = min(AWAY_S, budget.seconds / 2) if budget.whole else 1.5 * stage.settings.lease_ttl_s
        begin_s, kills_ms = stage.clock.now_s, []
        for i in range(budget.count):
            if stage.clock.now_s - begin_s > budget.seconds - away_s:
                break
            killed_s = stage.clock.now_s
            leaders = brokers.leaders()
            victim = max(leaders, key=lambda broker: leaders[broker])
            stage.note(f"kill -9 broker {victim}, which leads {leaders[victim]} partitions")
            brokers.kill(victim)
            kills_ms.append(time.time() * 1000)
            short = [stage.submit(tiny.one()) for _ in range(2)]
            stage.until(lambda ids=short: all(map(stage.ended, ids)), "short runs do not end on two brokers", 90.0)  # type: ignore[misc]
            brokers.whole()
            stage.note(f"whole again, {brokers.move_leaders()} leaders moved back")
            if i + 1 < budget.count:
                stage.clock.wait_for(killed_s + every_s)
        during = _all_away(stage, brokers, runs, away_s)
        grown = stage.crew.memory() - memory
        for run_id in runs:
            stage.client.attach(run_id).stop()
        verdict = stage.judge()
        states, attempts = verdict.states(), max(len(run.spans) for run in verdict.runs.values())
        others = len(verdict.runs) - states["SUCCEEDED"]
        ends_ms = [*kills_ms[1:], during[0]]
        stalls = [_stall_s(verdict, runs, at_ms, end_ms - APART_MS) for at_ms, end_ms in zip(kills_ms, ends_ms, strict=True)]
        count = f"{len(kills_ms)} kills, {len(verdict.runs)} runs, at most {attempts} attempts"
        p99 = percentile(stalls)
        told = f"{p99:.1f} s (median {percentile(stalls, 0.5):.1f} s)"
        away = min(_made_between(verdict, run_id, *during) for run_id in runs)
        return [
            Figure(
                "R9",
                "epochs of a run while all brokers were away, in the log afterwards",
                "> 3",
                str(away),
                f"1 time, for {(during[1] - during[0]) / 1000:.0f} s",
                away > 3,
            ),
            Figure("R9", "runs lost or failed with a broker killed again and again", "0", str(others), count, others == 0),
            Figure("R9", "publish stall after a kill, p99", f"≤ {STALL_S:g} s", told, f"{len(stalls)} kills", p99 <= STALL_S),
            Figure("R9", "a supervisor grew by", "≤ 64 MiB", f"{grown / (1 << 20):.0f} MiB", count, grown <= MEMORY),
        ]


def _all_away(stage: Stage, brokers: Brokers, runs: list[str], away_s: float) -> tuple[float, float]:
    """All three are dead; from when to when, in ms. Whose attempt it was before, its attempt it is afterwards."""
    before = {run_id: _attempt(stage, run_id) for run_id in runs}
    begin_s, begin_ms = stage.clock.now_s, time.time() * 1000
    stage.note("all brokers die")
    for broker in range(3):
        brokers.kill(broker)
    stage.clock.wait_for(begin_s + away_s)
    brokers.whole()
    end_ms = time.time() * 1000
    stage.note("all brokers are back")
    for run_id in runs:
        count = len(stage.follower.history(run_id).epochs)
        stage.until(lambda i=run_id, n=count: len(stage.follower.history(i).epochs) > n, f"{run_id} is not heard of again", 60.0)  # type: ignore[misc]
        assert _attempt(stage, run_id) == before[run_id], stage.told()
    return begin_ms, end_ms


def _attempt(stage: Stage, run_id: str) -> int:
    state = stage.state(run_id)
    return state.last_n if state is not None else 0


def _made_between(verdict: Verdict, run_id: str, begin_ms: float, end_ms: float) -> int:
    rows = [row for _, batch in verdict.logs[run_id].rows for row in batch["rows"] if row["type"] == "epoch"]
    return sum(begin_ms < row["at_ms"] < end_ms for row in rows)


def _stall_s(verdict: Verdict, runs: list[str], at_ms: float, end_ms: float) -> float:
    """The longest that a row waited between its making and its place in the log, of those made in this time."""
    waits = [0.0]
    for run_id in runs:
        log = verdict.logs[run_id]
        for offset, batch in log.rows:
            made = [row["at_ms"] for row in batch["rows"] if at_ms <= row.get("at_ms", 0) < end_ms]
            waits += [(log.appended_ms[offset] - each) / 1000 for each in made]
    return max(waits)
