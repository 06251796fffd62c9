"""kafka_jupyter: one worker with two slots, each training in a process of its own; progress from the log, as every handle has it."""

from __future__ import annotations

import time
from typing import Any

import msgspec

import kafka_jupyter
from benchmarks import small
from benchmarks.bench import Stack
from benchmarks.peers.system import Clock, System, Times
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.rows import EpochEnded


class Ours(System):
    name, keeps = "kafka_jupyter", "everything: submit, metrics, checkpoints and results are in Kafka"

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._tiny = small.tiny_task(stack)

    def train(self, model: Any, data: tuple[Any, Any], epochs: int, batch_size: int) -> Times:
        clock = Clock(epochs)

        def saw(change: Change) -> None:
            for row in change.rows:
                if isinstance(row, EpochEnded):
                    clock.seen(row.at_ms / 1000)

        leave = self._stack.follower.subscribe(saw)
        try:
            with kafka_jupyter.train("ahead", background=True, settings=self._stack.settings):
                run = model.fit(*data, epochs=epochs, batch_size=batch_size)
            clock.returned()
            run.result()
            return clock.done()
        finally:
            leave()

    def start(self) -> float:
        return small.claimed_after(self._stack, self._tiny)

    def many(self, count: int) -> float:
        began_s = time.perf_counter()
        runs = [self._stack.client.submit(msgspec.structs.replace(self._tiny, run_id=ids.new_run_id("tiny"))) for _ in range(count)]
        for run in runs:
            run.wait()
        return time.perf_counter() - began_s

    def rest(self) -> None:
        """Until the worker is idle and has its next child ready."""
        self._stack.idle_worker()
