"""R3, R5: a worker falls silent (killed, asleep, cut off, told to go), another one takes over, and the first changes nothing any more."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator

from tests.faults.brokers import Brokers
from tests.faults.checker import Verdict
from tests.faults.crew import Post, alive
from tests.faults.figures import Budget, Figure, percentile
from tests.faults.plan import plan
from tests.faults.stage import TTL_S, Stage

RUNS = 3  # a cycle: those on the worker that is struck become zombies together
SOAKED = 6  # the same in the soak
SLOTS = 8
LOST_S = TTL_S + 15.0
HANDOVER_S = 3.0
AWAKE_S = 1.0  # a zombie's child is dead so long after waking
TOLD_S = 5.0  # … after its way to Kafka is open again: the client has to connect anew
LONGER = ("freeze", "cut", "deaf")


@dataclasses.dataclass
class Strikes:
    """What befell how many attempts, and how long what followed took, in seconds."""

    struck: dict[str, set[tuple[str, int]]] = dataclasses.field(default_factory=dict)
    next_s: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    dead_s: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def count(self, *kinds: str) -> int:
        return sum(len(self.struck.get(kind, ())) for kind in set(kinds))


@contextlib.contextmanager
def two_workers(brokers: Brokers, folder: pathlib.Path, seed: int, name: str = "over", **env: str) -> Iterator[Stage]:
    """Each with a way of its own to Kafka, and a store that is reached without it."""
    store = folder / "store"
    store.mkdir(parents=True)
    posts = [Post(slots=SLOTS, servers=brokers.gates[i].servers) for i in range(2)]
    env = {"KAFKA_JUPYTER_STORE": store.as_uri()} | env
    with contextlib.closing(Stage(name, brokers, folder, posts, seed, env, store=store.as_uri())) as stage:
        stage.workers_there()
        yield stage


def zombies(stage: Stage, seed: int, budget: Budget) -> list[Figure]:
    """SIGSTOP for longer than two leases, or no way to Kafka for as long; with the wish of 200 sleepers and 50 cuts."""
    strikes = _strike(stage, seed, budget, ("freeze",) * (8 if budget.whole else 1) + ("cut", "deaf"))
    verdict = stage.judge()
    sleepers, cuts = strikes.count("freeze"), strikes.count("cut", "deaf")
    accepted, records = _after_their_end(verdict, set().union(*strikes.struck.values()))
    count = f"{sleepers} of 200 sleepers, {cuts} of 50 cut off; {records} records of theirs came too late"
    awake, told = strikes.dead_s.get("freeze", []), strikes.dead_s.get("cut", []) + strikes.dead_s.get("deaf", [])
    return [
        Figure("R3", "zombie records accepted", "0", str(accepted), count, accepted == 0 and sleepers + cuts > 0),
        _longest("R3", "a sleeper's child is dead after waking, max", AWAKE_S, awake),
        _longest("R3", "a cut off worker's child is dead after the cut, max", TOLD_S, told),
    ]


def kills(stage: Stage, seed: int, budget: Budget) -> list[Figure]:
    """kill -9 and SIGTERM, until the next attempt speaks."""
    strikes = _strike(stage, seed, budget, ("kill", "terminate"))
    stage.judge()
    killed, told = strikes.next_s.get("kill", []), strikes.next_s.get("terminate", [])
    return [
        _p99("R5", f"kill -9 of a worker → next attempt, p99 (ttl {TTL_S:g} s)", LOST_S, killed),
        _p99("R5", "SIGTERM → next attempt, p99", HANDOVER_S, told),
    ]


def _strike(stage: Stage, seed: int, budget: Budget, kinds: tuple[str, ...]) -> Strikes:
    """Cycles: runs begin, the worker with the most of them is struck, the other one takes over, the zombies wake up."""
    strikes, tiny, begin_s = Strikes(), stage.endless("long"), stage.clock.now_s
    for fault in plan(seed, 10_000.0, 1.0, kinds, len(stage.crew)):
        enough = strikes.count(*kinds) >= budget.count and all(strikes.count(kind) for kind in kinds)
        if enough or stage.clock.now_s - begin_s > budget.seconds:
            break
        stage.workers_there()
        runs = [stage.submit(tiny.one()) for _ in range(SOAKED if budget.whole else RUNS)]
        for run_id in runs:
            stage.running(run_id)
        where = {run_id: stage.post_of(run_id) for run_id in runs}
        post = max((p for p in where.values() if p is not None), key=list(where.values()).count)
        victims = [run_id for run_id in runs if where[run_id] == post]
        stage.note(f"{fault.kind} w{post} with {', '.join(victims)}")
        _one(stage, strikes, fault.kind, post, victims, fault.for_s)
        for run_id in runs:
            stage.client.attach(run_id).stop()
        stage.until(lambda ids=runs: all(map(stage.ended, ids)), f"{runs} do not stop", 60.0)  # type: ignore[misc]
    return strikes


def _one(stage: Stage, strikes: Strikes, kind: str, post: int, victims: list[str], for_s: float) -> None:
    crew, gate = stage.crew, stage.brokers.gates[post]
    pids = [stage.child_of(run_id) for run_id in victims]
    struck_ms = time.time() * 1000
    {"kill": crew.kill, "terminate": crew.terminate, "freeze": crew.freeze}.get(kind, lambda _: None)(post)
    if kind in ("cut", "deaf"):
        gate.cut() if kind == "cut" else gate.deafen()
    back_at_s = stage.clock.now_s + for_s
    for run_id in victims:
        stage.running(run_id, attempt=2)
        began_ms = _claimed_ms(stage, run_id)
        strikes.next_s.setdefault(kind, []).append((began_ms - struck_ms) / 1000)
        strikes.struck.setdefault(kind, set()).add((run_id, 1))
    if kind in LONGER:
        stage.clock.wait_for(back_at_s)
        crew.thaw(post)
        gate.heal()
    awake_s = stage.clock.now_s
    stage.until(lambda: not any(map(alive, pids)), f"children {pids} of w{post} live on after {kind}", 30.0)
    strikes.dead_s.setdefault(kind, []).append(stage.clock.now_s - awake_s)
    stage.note(f"its children were gone {strikes.dead_s[kind][-1]:.2f} s after that")


def _claimed_ms(stage: Stage, run_id: str) -> int:
    state = stage.state(run_id)
    assert state is not None
    assert state.open is not None
    return state.open.claimed_ms


def _after_their_end(verdict: Verdict, struck: set[tuple[str, int]]) -> tuple[int, int]:
    """Of the struck attempts: records that count after their Expired, and records that stand there at all."""
    accepted = records = 0
    for run_id, n in struck:
        span = verdict.runs[run_id].spans[n - 1]
        closed = span.closed or 0
        late = [entry for entry in verdict.logs[run_id].control if "nonce" in entry.record and span.is_of(entry.record)]
        late = [entry for entry in late if entry.offset > closed]
        closed_ms = next(entry.time_ms for entry in verdict.logs[run_id].control if entry.offset == closed)
        appended = verdict.logs[run_id].appended_ms
        records += len(late) + sum(span.is_of(batch) and appended[offset] > closed_ms for offset, batch in verdict.logs[run_id].rows)
        accepted += sum(entry in verdict.runs[run_id].accepted for entry in late)
    return accepted, records


def _longest(row: str, what: str, target_s: float, values: list[float]) -> Figure:
    longest = max(values, default=0.0)
    return Figure(row, what, f"≤ {target_s:g} s", f"{longest:.2f} s", f"{len(values)} times", bool(values) and longest <= target_s)


def _p99(row: str, what: str, target_s: float, values: list[float]) -> Figure:
    p99 = percentile(values)
    measured = f"{p99:.2f} s (median {percentile(values, 0.5):.2f} s)"
    return Figure(row, what, f"≤ {target_s:g} s", measured, f"{len(values)} attempts", bool(values) and p99 <= target_s)
