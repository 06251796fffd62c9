"""R7: trainings that are killed at any step, once or more, against twins that nobody disturbed: the same weights and the same history.

One worker writes its checkpoints at the ends of epochs, the other one in the middle of them.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy

from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.task import Task
from tests.faults.brokers import Brokers
from tests.faults.checker import Verdict
from tests.faults.crew import Post
from tests.faults.figures import Budget, Figure
from tests.faults.stage import Stage
from tests.support.training import task_of

SLOTS = 8
OPEN = 12  # that wait or train at a time
ROWS, EPOCHS, PATIENCE = 400, 60, 12
WHOLE = 100  # trials that the property asks for
AT_ENDS = {"KAFKA_JUPYTER_CHECKPOINT_GAP_S": "0", "KAFKA_JUPYTER_CHECKPOINT_EVERY_S": "1000"}
WITHIN = {"KAFKA_JUPYTER_CHECKPOINT_GAP_S": "1000", "KAFKA_JUPYTER_CHECKPOINT_EVERY_S": "0.2"}
KINDS = ("MLP Adam", "CNN SGD", "LSTM Adam", "MLP SGD", "CNN Adam", "LSTM SGD")


def twins(brokers: Brokers, folder: pathlib.Path, seed: int, budget: Budget, kinds: Sequence[str] = KINDS) -> list[Figure]:
    """`budget.count` trainings that were killed."""
    store = folder / "store"
    store.mkdir(parents=True)
    env = {"KAFKA_JUPYTER_STORE": store.as_uri(), "KAFKA_JUPYTER_CHECKPOINT_SHARE": "1"}
    posts = [Post(SLOTS, more_env=AT_ENDS), Post(SLOTS, more_env=WITHIN)]
    with contextlib.closing(Stage("twins", brokers, folder, posts, seed, env, store=store.as_uri())) as stage:
        stage.workers_there()
        tasks = {kind: _task(kind) for kind in kinds}
        undisturbed = {kind: stage.submit(_again(task)) for kind, task in tasks.items()}
        stage.until(lambda: not stage.open_runs(), "the twins do not end", 120.0)
        played = _Trials(stage, tasks, random.Random(seed))
        played.play(-(-budget.count // len(kinds)), budget.seconds)
        verdict = stage.judge()
        return _compared(verdict, undisturbed, played)


@dataclasses.dataclass
class _Trials:
    stage: Stage
    tasks: dict[str, Task]
    chance: random.Random
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # of the runs
    struck: set[str] = dataclasses.field(default_factory=set)  # runs
    wanted: dict[str, int] = dataclasses.field(default_factory=dict)  # how often a run is still to be killed
    kills: int = 0

    def play(self, each: int, seconds: float) -> None:
        """Until so many of each kind were killed and have ended. Some are killed more than once, some not at all."""
        stage, due_s = self.stage, None
        end_s = stage.clock.now_s + seconds
        while stage.clock.now_s < end_s and self._submitted(each):
            if due_s is None and self._manned():
                due_s = stage.clock.now_s + self.chance.uniform(0.0, 3.0)
            if due_s is not None and stage.clock.now_s >= due_s and self._kill():
                due_s = None
            stage.follower.wait(lambda: False, 0.1)
        stage.until(lambda: not stage.open_runs(), "trials do not end", 120.0)

    def _submitted(self, each: int) -> bool:
        """Submits what may be missing; whether anything is open."""
        there = self.stage.open_runs()
        hopes = collections.Counter(self.kinds[run_id] for run_id in self.struck.union(there))
        missing = [kind for kind in self.tasks for _ in range(each - hopes[kind])]
        self.chance.shuffle(missing)
        for kind in missing[: max(0, OPEN - len(there))]:
            run_id = self.stage.submit(_again(self.tasks[kind]))
            self.kinds[run_id], self.wanted[run_id] = kind, self.chance.choice((1, 1, 2))
        return bool(missing or there)

    def _manned(self) -> bool:
        announced = {worker.pid for worker in self.stage.follower.workers()}
        return all(worker.process.pid in announced for worker in self.stage.crew.now)

    def _kill(self) -> bool:
        """The worker with most trainings that are to be killed. Those beside them die as well."""
        at: dict[int, list[str]] = {}
        for run_id in self.stage.open_runs():
            state, post = self.stage.state(run_id), self.stage.post_of(run_id)
            if post is not None and state is not None and state.open is not None and state.open.started:
                at.setdefault(post, []).append(run_id)
        victims = {post: sum(self.wanted[run_id] > 0 for run_id in there) for post, there in at.items()}
        victims = {post: n for post, n in victims.items() if 2 * n >= len(at[post]) > 0}  # the others have had enough
        if not victims:
            return False
        post = max(victims, key=lambda post: victims[post])
        self.stage.note(f"kill w{post} with {', '.join(at[post])}")
        self.stage.crew.kill(post)
        self.struck.update(at[post])
        for run_id in at[post]:
            self.wanted[run_id] -= 1
        self.kills += 1
        return True


def _compared(verdict: Verdict, undisturbed: dict[str, str], played: _Trials) -> list[Figure]:
    for run_id in undisturbed.values():
        assert len(verdict.runs[run_id].spans) == 1, f"{run_id} was disturbed"
    per_kind: collections.Counter[str] = collections.Counter()
    worst, same, histories, within, attempts = 0.0, 0, 0, 0, 0
    for run_id, kind in played.kinds.items():
        spans = verdict.runs[run_id].spans
        if not any(span.closed_by == "expired" and span.started for span in spans):
            continue
        per_kind[kind] += 1
        attempts += len(spans)
        within += any(span.started is not None and span.started.record.get("step", 0) > 0 for span in spans)
        twin = undisturbed[kind]
        difference = _difference(_part(verdict, run_id, "state"), _part(verdict, twin, "state"))
        history = _part(verdict, run_id, "outcome") == _part(verdict, twin, "outcome")
        worst, same, histories = max(worst, difference), same + (difference == 0.0), histories + history
    trials = per_kind.total()
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(per_kind.items()))
    twice = attempts - 2 * trials
    count = f"{played.kills} kills of workers, {told}; {twice} times once more, {within} went on within an epoch"
    what = "max abs weight difference, killed at a random step versus undisturbed"
    all_kinds = len(per_kind) == len(undisturbed)
    return [
        Figure("R7", what, f"0 in {WHOLE} of {WHOLE}", f"{worst:g}; 0 in {same} of {trials}", count, same == trials and all_kinds),
        Figure("R7", "the same history and outcome", f"{WHOLE} of {WHOLE}", f"{histories} of {trials}", count, histories == trials > 0),
    ]


def _part(verdict: Verdict, run_id: str, name: str) -> bytes:
    end = verdict.runs[run_id].end
    assert end is not None
    assert end.type == "succeeded", f"{run_id}: {end.record}"
    data = verdict.topics.bytes_of(end.record["parts"][name])
    assert data is not None
    return data


def _difference(one: bytes, other: bytes) -> float:
    """0 only where every byte is the same."""
    if one == other:
        return 0.0
    mine, yours = safetensors.numpy.load(one), safetensors.numpy.load(other)
    if mine.keys() != yours.keys():
        return float("inf")
    return max(float(np.max(np.abs(mine[name].astype("float64") - yours[name].astype("float64")))) for name in mine) or float("inf")


# --- what is trained


def _again(task: Task) -> Task:
    return msgspec.structs.replace(task, run_id=ids.new_run_id(task.name))


@functools.cache
def _task(kind: str) -> Task:
    import keras

    network, _, optimizer = kind.partition(" ")
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((64,)), *_LAYERS[network](keras.layers), keras.layers.Dense(10, "softmax")])
    fast = keras.optimizers.Adam(0.003) if optimizer == "Adam" else keras.optimizers.SGD(0.02, momentum=0.9)
    model.compile(fast, "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=3),
    ]
    name = kind.replace(" ", "-").lower()
    return task_of(model, name, ROWS, EPOCHS, batch_size=16, validation_split=0.25, callbacks=callbacks)


def _mlp(layers: Any) -> list[Any]:
    return [layers.Dense(64, "relu"), layers.Dropout(0.3)]


def _cnn(layers: Any) -> list[Any]:
    return [layers.Reshape((8, 8, 1)), layers.Conv2D(6, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]


def _lstm(layers: Any) -> list[Any]:
    return [layers.Reshape((8, 8)), layers.LSTM(12, dropout=0.2)]


_LAYERS = {"MLP": _mlp, "CNN": _cnn, "LSTM": _lstm}
