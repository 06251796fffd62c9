"""How long a person waits for `fit` to return in the background: with the data set in the store already, and the first time."""

from __future__ import annotations

import os
import statistics
import time

import numpy as np

import kafka_jupyter
from benchmarks import work
from benchmarks.bench import Bench, Stack, say
from benchmarks.report import Chapter, Figure, p50_p99, spread

HOW = """From the call of `fit` to its return, `background=True`, a new model each time: capture, data set, task acked. *First time*: the
data go into the store on the way, compared with writing as many bytes into it and nothing else."""

ROUNDS = 4  # for one of the other chapters: each takes milliseconds
TIMES = 37  # the digits, to have some data: 16 MiB


def measure(bench: Bench) -> Chapter:
    rounds = ROUNDS * bench.scale.rounds
    x, y = work.digits()
    small = [_round(bench.stack, x + i / np.float32(1000), y, f"submitting, {i} of {rounds}") for i in range(rounds + 1)]
    rounds = bench.scale.rounds
    x, y = np.tile(x, (TIMES, 1)), np.tile(y, TIMES)
    large = [_round(bench.stack, x + i / np.float32(7), y, f"submitting 16 MiB, {i} of {rounds}") for i in range(rounds + 1)]
    again = [times[2] for times in small[1:]]
    return Chapter(
        "Submit",
        HOW,
        [
            Figure("submit → return, 449 KiB in the store", p50_p99(again), "≤ 10 ms", statistics.median(again) <= 0.010),
            _first_time("449 KiB", small, None),
            _first_time("16 MiB", large, 1.2),
        ],
    )


def _first_time(size: str, rounds: list[tuple[float, float, float]], target: float | None) -> Figure:
    written, first, _ = (list(times) for times in zip(*rounds[1:], strict=True))
    ratio = statistics.median(first) / statistics.median(written)
    value = f"{ratio:.2f} × writing the data: {spread(first)} against {spread(written)}"
    return Figure(f"submit → return, {size} for the first time", value, *((f"≤ {target} ×", ratio <= target) if target else ()))


def _round(stack: Stack, x: work.Array, y: work.Array, progress: str) -> tuple[float, float, float]:
    """Seconds to write as many bytes, to submit data that nobody knows, and to submit them again."""
    say(progress)
    return _write(stack, x.nbytes), _submit(stack, x, y), _submit(stack, x, y)


def _write(stack: Stack, size: int) -> float:
    data = os.urandom(size)
    started = time.perf_counter()
    stack.client.store.put("bench", size, [data])
    return time.perf_counter() - started


def _submit(stack: Stack, x: work.Array, y: work.Array) -> float:
    stack.idle_worker()
    model = work.mlp()
    with kafka_jupyter.train("submit", background=True, settings=stack.settings):
        started = time.perf_counter()
        run = model.fit(x, y, steps_per_epoch=1)
        took = time.perf_counter() - started
    run.result()
    return took
