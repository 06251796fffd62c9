"""From the end of an epoch in the child to the handle: the clock in the row against this process's clock, on one machine."""

from __future__ import annotations

import time

import kafka_jupyter
from benchmarks import work
from benchmarks.bench import Bench, say
from benchmarks.report import Chapter, Figure, p50_p99, percentile
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.protocol.rows import EpochEnded

HOW = """One run of many epochs. A row carries the clock at which its epoch ended in the child, rounded to whole milliseconds."""


def measure(bench: Bench) -> Chapter:
    stack = bench.stack
    stack.idle_worker()
    say(f"a run of {bench.scale.epochs} epochs")
    lags: list[float] = []

    def saw(change: Change) -> None:
        now = time.time()
        lags.extend(now - row.at_ms / 1000 for row in change.rows if isinstance(row, EpochEnded))

    leave = stack.follower.subscribe(saw)
    try:
        model = work.mlp()
        with kafka_jupyter.train("lag", background=True, settings=stack.settings):
            run = model.fit(*work.digits(), epochs=bench.scale.epochs)
        run.result()
    finally:
        leave()
    p50, p99 = percentile(lags, 50), percentile(lags, 99)
    return Chapter(
        "Live metrics",
        HOW,
        [Figure("epoch end → handle, `acks=all`", p50_p99(lags), "p50 ≤ 5 ms, p99 ≤ 25 ms", p50 <= 0.005 and p99 <= 0.025)],
    )
