"""What the way of the numbers takes: rows from a worker's hand into the log and to a handle, and what the callback costs the training."""

from __future__ import annotations

import contextlib
import os
import queue
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

from benchmarks import work
from benchmarks.bench import Bench, say
from benchmarks.report import Chapter, Figure
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import frames
from kafka_jupyter.worker.reporter import Reporter
from tests.support.playing import Player

HOW = """*Rows*: epochs of four metrics through `worker.Reporter` in one process, which gives a record to Kafka whenever the last one is
acked, from the first to the ack of the last; and until a handle in the same process has the last of them, judged and in its memory.
*Callback*: CPU time within the callback of a worker's child, its frames into a pipe, in an epoch of {steps} batches of 1 ms: put
together from what its calls take while `fit` trains the quickstart's MLP in this process (batches that are told and those that are not),
less what it takes to look at the clock."""

ROWS = 100_000
METRICS: dict[str, float | None] = {"loss": 0.1234, "accuracy": 0.9876, "val_loss": 0.2345, "val_accuracy": 0.9123}
BURST = 100  # rows between two looks at what Kafka has acked, as a supervisor's loop takes them from a child's socket
EPOCHS = 40
STEPS = 57  # batches of an epoch of the digits
RATE, BATCH_S, SHARE = 100_000, 0.001, 0.01


def measure(bench: Bench) -> Chapter:
    settings = bench.kafka.replace(topic_prefix="metrics.")
    log = Log.open(Cluster(settings), create=True)
    rounds = min(7, bench.scale.rounds)
    durable, seen = [], []
    try:
        for i in range(rounds + 1):
            say(f"{ROWS:,} rows, {i} of {rounds}")
            durable.append(_durable(log, f"rows-{i}"))
            seen.append(_seen(log, f"seen-{i}"))
    finally:
        log.close()
    say("the callback")
    spent = _callback()
    share = spent / (STEPS * BATCH_S)
    rate, known = statistics.median(durable[1:]), statistics.median(seen[1:])
    figures = [
        Figure("rows a second, durable in Kafka", f"{rate:,.0f} ({rounds} rounds of {ROWS:,})", "≥ 100,000", rate >= RATE),
        Figure("rows a second, durable and known to a handle of the same process", f"{known:,.0f}"),
        Figure("callback, batches of 1 ms", f"{share:.2%} of `fit` ({spent / STEPS * 1e6:.1f} µs a batch)", "< 1%", share < SHARE),
    ]
    return Chapter("The way of the numbers", HOW.format(steps=STEPS), figures)


def _durable(log: Log, name: str) -> float:
    """Rows a second until Kafka has acked them all."""
    player = Player.new(log, name, epochs=ROWS)
    player.submit()
    player.claim()
    player.start()
    posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    reporter = Reporter(log, player.run_id, player.n, player.worker, player.nonce, posted.put)
    began = time.perf_counter()
    for epoch in range(ROWS):
        reporter.epoch(epoch, STEPS, METRICS, 0.1, 0)
        if epoch % BURST == 0:
            while not posted.empty():
                posted.get()()
    while not reporter.empty:
        posted.get(timeout=30)()
    took = time.perf_counter() - began
    player.last_row = reporter.last_offset
    player.succeed()
    return ROWS / took


def _seen(log: Log, name: str) -> float:
    """… and a follower in this process has read them all."""
    known: list[float] = []

    def saw(change: Change) -> None:
        if change.rows and change.rows[-1].seq == ROWS:
            known.append(time.perf_counter())

    with contextlib.closing(Follower(log)) as follower:
        follower.start()
        follower.subscribe(saw)
        began = time.perf_counter()
        _durable(log, name)
        assert follower.wait(lambda: bool(known), 60)
    return ROWS / (known[0] - began)


def _callback() -> float:
    """CPU seconds within the callback of an epoch of STEPS batches of BATCH_S, put together from what its calls take in a `fit`: medians,
    behind the first epoch, in which Keras traces."""
    import keras

    from kafka_jupyter.training.reporter import Reporter as Callback

    drain = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert drain.stdin is not None
    pipe = drain.stdin.fileno()
    took: dict[str, list[float]] = {"begin": [], "batch": [], "told": [], "end": [], "nothing": []}
    sent = 0

    def send(frame: frames.Frame) -> None:
        nonlocal sent
        sent += 1
        _write(pipe, frames.pack(frame))

    class Nothing(keras.callbacks.Callback):  # type: ignore[misc]
        """What it takes to look at the clock twice, behind a step of TensorFlow that has emptied the caches."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            began = time.thread_time()
            took["nothing"].append(time.thread_time() - began)

    class Timed(Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            began = time.thread_time()
            super().on_epoch_begin(epoch, logs)
            took["begin"].append(time.thread_time() - began)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            before, began = sent, time.thread_time()
            super().on_train_batch_end(batch, logs)
            took["told" if sent > before else "batch"].append(time.thread_time() - began)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            began = time.thread_time()
            super().on_epoch_end(epoch, logs)
            took["end"].append(time.thread_time() - began)

    period_s = frames.Job(b"", {}, "").progress_period_s
    model = work.mlp()
    model.fit(*work.digits(), epochs=EPOCHS, verbose=0, callbacks=[Timed(send, lambda expected, _: expected, period_s), Nothing()])
    drain.stdin.close()
    drain.wait()
    nothing = statistics.median(took.pop("nothing"))
    begin, batch, told, end = (statistics.median(times[1:]) - nothing for times in took.values())
    return begin + STEPS * batch + STEPS * BATCH_S / period_s * told + end


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]
