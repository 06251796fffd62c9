"""Many tiny runs, one after the other: how soon an idle worker starts one, and what is left of each in the supervisor's memory."""

from __future__ import annotations

import statistics
import threading
import time

import msgspec
import psutil

from benchmarks import work
from benchmarks.bench import Bench, Stack, say
from benchmarks.report import Chapter, Figure, p50_p99, percentile
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.capture import send
from kafka_jupyter.capture.options import Options, Place
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.task import Task

HOW = """One epoch on 64 rows, each run submitted when the worker is idle. *Start*: from the call of `Client.submit` until this process has
read the winning claim, from the log that the worker reads its own claim from. *Memory*: resident memory of the supervisor, without the
process that children are forked from, and its slope (least squares) after the first tenth of the runs."""

ROWS = 64
FLAT_KIB = 10.0  # a run; what the ledger knows of it has to be somewhere


def measure(bench: Bench) -> Chapter:
    stack = bench.stack
    supervisor = psutil.Process(stack.idle_worker().pid)
    task = tiny_task(stack)
    starts: list[float] = []
    memory: list[float] = []
    claimed_after(stack, task)
    for i in range(bench.scale.runs):
        if i % 50 == 0:
            say(f"tiny runs, {i} of {bench.scale.runs}")
        starts.append(claimed_after(stack, task))
        memory.append(supervisor.memory_info().rss / 1024)
    p50, p99 = percentile(starts, 50), percentile(starts, 99)
    settled = memory[len(memory) // 10 :]
    first, last = settled[0] / 1024, settled[-1] / 1024
    slope = statistics.linear_regression(range(len(settled)), settled).slope
    return Chapter(
        "Tiny runs",
        HOW,
        [
            Figure("submit → start on an idle worker", p50_p99(starts), "p50 ≤ 15 ms, p99 ≤ 60 ms", p50 <= 0.015 and p99 <= 0.060),
            Figure(
                f"supervisor memory over {bench.scale.runs} runs",
                f"{slope:+.1f} KiB a run: {first:.1f} MiB after {len(memory) - len(settled) + 1}, {last:.1f} MiB at the end",
                f"flat: ≤ {FLAT_KIB:g} KiB a run",
                slope <= FLAT_KIB,
            ),
        ],
    )


def tiny_task(stack: Stack) -> Task:
    from kafka_jupyter.models import capture

    x, y = work.digits()
    captured = capture.capture_fit(work.mlp(), (x[:ROWS], y[:ROWS]), {"epochs": 1})
    prepared = send.prepare(captured)
    return send.build_task(prepared, lambda: stack.client.store, "tiny", "tiny", "bench", Options(), Place(key="bench"))


def claimed_after(stack: Stack, task: Task) -> float:
    """Seconds from submit to the winning claim; the run has ended when this returns."""
    stack.idle_worker()
    task = msgspec.structs.replace(task, run_id=ids.new_run_id("tiny"))
    claimed: list[float] = []
    won = threading.Event()

    def saw(change: Change) -> None:
        if change.run_id == task.run_id and isinstance(change.record, control.Claimed) and change.state is not None and change.state.open:
            claimed.append(time.perf_counter())
            won.set()

    leave = stack.follower.subscribe(saw)
    try:
        started = time.perf_counter()
        run = stack.client.submit(task)
        run.wait()
    finally:
        leave()
    return claimed[0] - started
