"""R12: a store that refuses, is full, cuts short or flips bytes: no run succeeds with an artifact that is missing or altered."""

from __future__ import annotations

import contextlib
import pathlib

from tests.faults.brokers import Brokers
from tests.faults.crew import Post
from tests.faults.figures import Budget, Figure
from tests.faults.stage import Stage, Tiny

SHARE = 0.3  # of the accesses that fail
OPEN = 4
UNITS = 300  # results that are too large to stand in the record


def store_faults(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget) -> list[Figure]:
    """`budget.count` faults."""
    store, log = folder / "store", folder / "faults.log"
    store.mkdir(parents=True)
    log.touch()
    env = {"KAFKA_JUPYTER_STORE": store.as_uri(), "FAULTS_IN_STORE": str(SHARE), "FAULTS_LOG": str(log)}
    posts = [Post(module="tests.faults.worker", more_env=env)] * 2
    with contextlib.closing(Stage("store", brokers, folder, posts, seed, store=store.as_uri())) as stage:
        stage.workers_there()
        tiny, begin_s = Tiny("kept", units=UNITS), stage.clock.now_s
        while _lines(log) < budget.count and stage.clock.now_s - begin_s < budget.seconds:
            stage.submit(tiny.one())
            stage.follower.wait(lambda: len(stage.open_runs()) < OPEN, 30.0)
        verdict = stage.judge()
        states = verdict.states()
        corrupt = sum("I4" in what for what in verdict.wrong)
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(_kinds(log).items()))
        count = f"{_lines(log)} of {budget.whole or budget.count} faults ({kinds}), {len(verdict.runs)} runs: {dict(states)}"
        ended = states["SUCCEEDED"]
        others = len(verdict.runs) - ended
        return [
            Figure("R12", "SUCCEEDED runs with a missing or corrupt artifact", "0", str(corrupt), count, corrupt == 0 and ended > 0),
            Figure("R12", "runs that a store cost which spoils, refuses or is full now and then", "0", str(others), count, others == 0),
        ]


def _lines(log: pathlib.Path) -> int:
    return len(log.read_text().splitlines())


def _kinds(log: pathlib.Path) -> dict[str, int]:
    kinds = [" ".join(line.split(" ")[:2]) for line in log.read_text().splitlines()]
    return {kind: kinds.count(kind) for kind in set(kinds)}
