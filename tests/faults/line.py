"""R14, R16: one long run and many short ones on two workers, with each group protocol; what comes out is the same."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

from tests.faults.brokers import Brokers
from tests.faults.checker import Verdict
from tests.faults.crew import Post
from tests.faults.figures import Budget, Figure
from tests.faults.stage import Stage, Tiny

WAIT_S = 5.0
PROTOCOLS = ("classic", "consumer")


@dataclasses.dataclass(frozen=True)
class Line:
    """`waits_s`: how long each short run waited while a slot was free. `results`: the name of a run → how it ended, and its weights."""

    waits_s: list[float]
    results: dict[str, tuple[str, str]]


def line(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget) -> list[Figure]:
    """`budget.count` short runs with each protocol."""
    tiny = Tiny("short")
    lines = {protocol: _one(brokers, folder / protocol, seed, budget, protocol, tiny) for protocol in PROTOCOLS}
    figures = []
    for protocol, found in lines.items():
        longest = max(found.waits_s)
        what = f"longest wait of a short run beside a long one while a slot is free, {protocol}"
        figures.append(Figure("R14", what, f"≤ {WAIT_S:g} s", f"{longest:.2f} s", f"{len(found.waits_s)} of 50 runs", longest <= WAIT_S))
    classic, consumer = (lines[protocol].results for protocol in PROTOCOLS)
    different = [name for name in classic if classic[name] != consumer.get(name)]
    count = f"{len(classic)} runs with each protocol, their ends and weights"
    what = "results that differ between classic and consumer"
    figures.append(Figure("R16", what, "0", str(len(different)), count, not different and len(classic) == len(consumer)))
    return figures


def _one(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget, protocol: str, tiny: Tiny) -> Line:
    env = {"KAFKA_JUPYTER_GROUP_PROTOCOL": protocol}
    with contextlib.closing(Stage(f"line-{protocol}-", brokers, folder, [Post(), Post()], seed, env)) as stage:
        stage.workers_there()
        long = stage.submit(stage.endless("long").one())
        stage.running(long)
        short = {stage.submit(tiny.one(name=f"short-{i}", seed=i)): f"short-{i}" for i in range(budget.count)}
        stage.until(lambda: all(map(stage.ended, short)), "short runs wait behind the long one", 120.0)
        stage.client.attach(long).stop()
        verdict = stage.judge()
        results = {name: (verdict.runs[run_id].state, weights(verdict, run_id)) for run_id, name in short.items()}
        return Line(waits(verdict, list(short)), results)


def waits(verdict: Verdict, short: list[str]) -> list[float]:
    """From when a run could have been claimed (it was submitted, and a worker had become free) until it was."""
    ends = sorted((run.end.time_ms, run.spans[-1].worker) for run in verdict.runs.values() if run.end is not None and run.spans)
    found = []
    for run_id in short:
        entries = {entry.offset: entry for entry in verdict.logs[run_id].control}
        span = verdict.runs[run_id].spans[0]
        claimed_ms = entries[span.opened].time_ms
        freed_ms = max((at_ms for at_ms, worker in ends if worker == span.worker and at_ms <= claimed_ms), default=0)
        found.append((claimed_ms - max(freed_ms, verdict.logs[run_id].control[0].time_ms)) / 1000)
    return found


def weights(verdict: Verdict, run_id: str) -> str:
    """What stands in the result, as text: small results are in the record itself."""
    end = verdict.runs[run_id].end
    assert end is not None
    part = end.record.get("parts", {}).get("state", {})
    return str(part.get("sha256") or part.get("data"))
