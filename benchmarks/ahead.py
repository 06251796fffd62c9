"""The same trainings on kafka_jupyter and on what people use instead, in turns, each system with warm workers of its own."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import work
from benchmarks.bench import Bench, say
from benchmarks.peers.dask import Dask
from benchmarks.peers.ipyparallel import Ipyparallel
from benchmarks.peers.kernel import Kernel
from benchmarks.peers.ours import Ours
from benchmarks.peers.ray import Ray
from benchmarks.peers.system import System, Times
from benchmarks.plot import trainings
from benchmarks.report import Chapter, Figure, percentile, spread

HOW = """Three trainings, each a new model: the quickstart's MLP on scikit-learn's digits (20 epochs of 57 batches); a CNN on the same
digits as 28 × 28 images (3 epochs of 29); an MLP on 50,000 × 32 rows (5 epochs of 25). In turns (A B C … A B C …), after a
warm-up of each, with a pause before each; all systems are up all the time, idle when it is not their turn, each with two
workers of its own that have Keras loaded. Progress as each system's documents say: Dask `log_event`, Ray a streaming generator,
ipyparallel `publish_data`. *Done*: the weights are in the caller's model. kafka_jupyter trains each run in a fresh process,
writes checkpoints, and has everything in Kafka (`acks=all`); of the others nothing is left when their processes die."""
MANY = """One epoch on 64 rows, a new model each, all submitted at once, on two workers. *Forked children*: a process with Keras loaded
forks one for each, two at a time, and does nothing else: what a fresh process costs in any case. *Start*: from the call until a
task of nothing has begun on an idle worker; of kafka_jupyter, until the winning claim has been read back."""
REST_S = 0.7  # before each training: an idle worker gets its next child ready, which should slow nobody

Make = Callable[[], Any]
Data = tuple[Any, Any]


@contextlib.contextmanager
def systems(bench: Bench) -> Any:
    """All of them, up and warm."""
    up: list[System] = []
    try:
        for make in (Kernel, lambda: Ours(bench.stack), Dask, Ray, Ipyparallel):
            up.append(make())
            say(f"up: {up[-1].name}")
        yield up
    finally:
        for system in up:
            system.close()


def measure(bench: Bench) -> Chapter:
    rounds = max(bench.scale.rounds // 2, 3)
    figures, tables, measured = [], [], {}
    with systems(bench) as up:
        for what, make, data, epochs, batch_size in _works():
            measured[what] = found = _in_turns(up, what, rounds, make, data, epochs, batch_size)
            figures += _figures(what, found)
            tables.append(_table(what, found))
    return Chapter("Ahead of whom", HOW, figures, "\n\n".join(tables), lambda file: trainings(file, measured, Kernel.name, Ours.name))


def _works() -> list[tuple[str, Make, Data, int, int]]:
    return [
        ("digits MLP", work.mlp, work.digits(), work.EPOCHS, 32),
        ("CNN on 28 × 28", work.cnn, work.images(), 3, 64),
        ("MLP on 50,000 rows", work.wide, work.rows(), 5, 2048),
    ]


def _in_turns(up: list[System], what: str, rounds: int, make: Make, data: Data, epochs: int, batch_size: int) -> dict[str, list[Times]]:
    found: dict[str, list[Times]] = {system.name: [] for system in up}
    for i in range(rounds + 1):
        say(f"{what}, {i} of {rounds}" if i else f"{what}: warm-up")
        for j in range(len(up)):
            system = up[(i + j) % len(up)]
            system.rest()
            time.sleep(REST_S)
            found[system.name].append(system.train(make(), data, epochs, batch_size))
    return {name: times[1:] for name, times in found.items()}


def _figures(what: str, found: dict[str, list[Times]]) -> list[Figure]:
    here, ours, dask = (found[name] for name in (Kernel.name, Ours.name, Dask.name))
    best = min(statistics.median(t.done for t in times) for name, times in found.items() if name not in (Kernel.name, Ours.name))
    first, done = (_ratio(ours, here, name) for name in ("first", "done"))
    to_dask, to_best = _ratio(ours, dask, "first"), statistics.median(t.done for t in ours) / best
    returned = [t.returned for t in ours]
    return [
        Figure(f"{what}: submit → return, `--background`", spread(returned), "≤ 10 ms", statistics.median(returned) <= 0.010),
        Figure(
            f"{what}: submit → first epoch seen",
            f"{first:.2f} × `fit` in the kernel, {to_dask:.2f} × Dask",
            "≤ 1.15 × and ≤ 1 ×",
            first <= 1.15 and to_dask <= 1,
        ),
        Figure(
            f"{what}: done, weights back",
            f"{done:.2f} × `fit` in the kernel, {to_best:.2f} × the best peer",
            "≤ 1.1 × and ≤ 1 ×",
            done <= 1.1 and to_best <= 1,
        ),
    ]


def _ratio(ones: list[Times], others: list[Times], name: str) -> float:
    return statistics.median(getattr(t, name) for t in ones) / statistics.median(getattr(t, name) for t in others)


def _table(what: str, found: dict[str, list[Times]]) -> str:
    rows = [f"| {what} | submit → return | first epoch seen | epoch end → seen, p50 / p99 | done |", "|---|---|---|---|---|"]
    for name, times in found.items():
        lags = [lag for t in times for lag in t.lags]
        lag = f"{percentile(lags, 50) * 1000:.1f} / {percentile(lags, 99) * 1000:.1f} ms"
        returned, first, done = (spread([getattr(t, field) for t in times]) for field in ("returned", "first", "done"))
        rows.append(f"| {name} | {'–' if name == Kernel.name else returned} | {first} | {lag} | {done} |")
    return "\n".join(rows)


def small(bench: Bench) -> Chapter:
    """Trainings of one epoch, many at once, and how soon one starts."""
    count, rounds = max(bench.scale.runs // 10, 10), max(bench.scale.rounds // 5, 2)
    rates: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {}
    with systems(bench) as up:
        for i in range(rounds + 1):
            for j in range(len(up)):
                system = up[(i + j) % len(up)]
                say(f"{count} tiny trainings: {system.name}, {i} of {rounds}")
                system.rest()
                rates.setdefault(system.name, []).append(count / system.many(count))
                for _ in range(bench.scale.epochs // 10):
                    if (took := system.start()) is not None:
                        starts.setdefault(system.name, []).append(took)
    rate = {name: statistics.median(found[1:]) for name, found in rates.items()}
    ratio = rate[Ours.name] / rate[Kernel.name]
    rows = ["| tiny trainings | a second | start, p50 / p99 | left when its processes die |", "|---|---|---|---|"]
    for system in up:
        told = starts.get(system.name, [])
        start = f"{percentile(told, 50) * 1000:.1f} / {percentile(told, 99) * 1000:.1f} ms" if told else "–"
        name = "forked children" if system.name == Kernel.name else system.name
        rows.append(f"| {name} | {rate[system.name]:.2f} | {start} | {system.keeps} |")
    figure = Figure("runs a second", f"{ratio:.2f} × the same in bare forked children", "≥ 0.8 ×", ratio >= 0.8)
    return Chapter("Many small runs", MANY, [figure], "\n".join(rows))
