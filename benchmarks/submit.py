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

HOW = """From the call of `fit` to its return, `background=True`, a new model each time: capture, data set (449 KiB), task acked. The first
time, the data are compared with writing as many bytes into the store and nothing else."""

ROUNDS = 4  # as many as the other chapters' rounds, times this: each takes milliseconds


def measure(bench: Bench) -> Chapter:
    stack = bench.stack
    x, y = work.digits()
    written: list[float] = []
    first: list[float] = []
    again: list[float] = []
    for i in range(ROUNDS * bench.scale.rounds + 1):
        if i % 5 == 0:
            say(f"submitting, {i} of {ROUNDS * bench.scale.rounds}")
        new = (x + np.float32(i + 1) / 1000).astype("float32")
        written.append(_write(stack, x.nbytes))
        first.append(_submit(stack, new, y))
        again.append(_submit(stack, new, y))
    ratio = statistics.median(first[1:]) / statistics.median(written[1:])
    p50 = statistics.median(again[1:])
    return Chapter(
        "Submit",
        HOW,
        [
            Figure("submit → return, data in the store", p50_p99(again[1:]), "≤ 10 ms", p50 <= 0.010),
            Figure(
                "submit → return, first time",
                f"{ratio:.2f} × writing the data: {spread(first[1:])} against {spread(written[1:])}",
                "≤ 1.2 ×",
                ratio <= 1.2,
            ),
        ],
    )


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
        run = model.fit(x, y, epochs=1)
        took = time.perf_counter() - started
    run.result()
    return took
