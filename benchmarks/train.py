"""The same training here and on a worker: until its first epoch is seen, until the weights are back, and where the time goes."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import kafka_jupyter
from benchmarks import work
from benchmarks.bench import Bench, Stack, say
from benchmarks.report import Chapter, Figure, spread
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import EpochEnded

HOW = """The MLP of the quickstart on scikit-learn's digits, 20 epochs of 57 batches, a new model each time. *In the kernel*: `fit` in this
warm process, without a progress bar. *On a worker*: the same `fit` inside `kafka_jupyter.train()`, each in a process of its own, which
the idle worker had forked and warmed up before; an epoch counts when this process has read it from Kafka, *done* when `fit` has returned
with weights, optimizer and history in place. The first `fit` of a model also compares the loss of its first batch in both places; the
runs without that are shown beside."""

REST_S = 1.0  # before each training: an idle worker gets its next child ready, which should slow neither side
HOPS = ("Submitted", "Claimed", "Started", "first epoch", "last epoch", "Succeeded", "fit returned")


class Watch:
    """When this process has read what, in seconds since `begin`."""

    def __init__(self) -> None:
        self.hops: dict[str, float] = {}
        self._began = 0.0

    def begin(self) -> None:
        self.hops = {}
        self._began = time.perf_counter()

    def note(self, hop: str) -> None:
        self.hops[hop] = time.perf_counter() - self._began

    def saw(self, change: Change) -> None:
        """Called on the follower's thread."""
        if isinstance(change.record, control.Submitted | control.Claimed | control.Started | control.Succeeded):
            self.note(type(change.record).__name__)
        if any(isinstance(row, EpochEnded) for row in change.rows):
            self.note("last epoch")
            self.hops.setdefault("first epoch", self.hops["last epoch"])


@contextlib.contextmanager
def watching(stack: Stack) -> Iterator[Watch]:
    watch = Watch()
    leave = stack.follower.subscribe(watch.saw)
    try:
        yield watch
    finally:
        leave()


def measure(bench: Bench) -> Chapter:
    here: list[tuple[float, float]] = []
    there: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with watching(bench.stack) as watch:
        ways: list[Callable[[], None]] = [
            lambda: here.append(work.fit_here(work.mlp())),
            lambda: there[True].append(_fit_there(bench.stack, watch, check=True)),
            lambda: there[False].append(_fit_there(bench.stack, watch, check=False)),
        ]
        for i in range(bench.scale.rounds + 1):
            say(f"training in the kernel and on the worker, {i} of {bench.scale.rounds}" if i else "training: warm-up")
            for j in range(len(ways)):  # whoever comes second finds the caches as the first has left them
                bench.stack.idle_worker()
                time.sleep(REST_S)
                ways[(i + j) % len(ways)]()
    return _chapter(here[1:], there[True][1:], there[False][1:])


def _fit_there(stack: Stack, watch: Watch, check: bool) -> dict[str, float]:
    model = work.mlp()
    with kafka_jupyter.train("bench", check=check, settings=stack.settings):
        watch.begin()
        model.fit(*work.digits(), epochs=work.EPOCHS)
        watch.note("fit returned")
    return watch.hops


def _chapter(here: list[tuple[float, float]], there: list[dict[str, float]], unchecked: list[dict[str, float]]) -> Chapter:
    figures = []
    for what, hop, which, target in (
        ("submit → first epoch seen in the notebook", "first epoch", 0, 1.15),
        ("done, weights back", "fit returned", 1, 1.1),
    ):
        local = [times[which] for times in here]
        for label, hops in (("", there), (", without the loss check", unchecked)):
            remote = [times[hop] for times in hops]
            ratio = statistics.median(remote) / statistics.median(local)
            value = f"{ratio:.2f} × `fit` in the kernel: {spread(remote)} against {spread(local)}"
            figures.append(Figure(what + label, value, *(() if label else (f"≤ {target} ×", ratio <= target))))
    return Chapter("The same training in the kernel and on a worker", HOW, figures, _timeline(there))


def _timeline(there: list[dict[str, float]]) -> str:
    rows = []
    before = 0.0
    for hop in HOPS:
        at = statistics.median(times[hop] for times in there) * 1000
        rows.append(f"| {hop} | {at:.0f} ms | +{at - before:.0f} ms |")
        before = at
    return "When this process has read each record, after the call of `fit`:\n\n| hop | at | step |\n|---|---|---|\n" + "\n".join(rows)
