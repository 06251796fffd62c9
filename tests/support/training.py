"""A small real training as a Task: what the notebook would send, without a notebook."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.models import capture
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.parts import InlineBytes, InlineText
from kafka_jupyter.protocol.task import ArraysData, KerasModel, Task
from tests.support.pace import paced

ENDLESS = 100_000  # epochs that nobody waits for


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: 1797 × 64 in 0..1, labels 0..9."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.data / 16).astype("float32"), bunch.target.astype("int32")


def mlp(units: int = 16, **compile_arguments: Any) -> Any:
    import keras

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(units, activation="relu"), keras.layers.Dense(10)])
    arguments = {"optimizer": "adam", "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"]}
    model.compile(**(arguments | compile_arguments))
    return model


@dataclasses.dataclass
class Submission:
    """A run whose Task and Submitted are acked."""

    log: Log
    run_id: str
    task: Task

    def say(self, record: control.Record) -> int:
        return self.log.write_control(record)

    def cancel(self) -> int:
        return self.say(control.CancelRequested(run_id=self.run_id, request_id=ids.new_request_id(), by="ada@test"))

    def stop(self) -> int:
        return self.say(control.StopRequested(run_id=self.run_id, request_id=ids.new_request_id(), by="ada@test"))


def task_of(model: Any, name: str, rows: int, epochs: int, requirements: Any = None, **fit: Any) -> Task:
    from kafka_jupyter.store import arrays

    x, y = digits()
    captured = capture.capture_fit(model, (x[:rows], y[:rows]), {"epochs": epochs, **fit})
    leaves = []
    for leaf in captured.leaves:
        _, chunks = arrays.chunks(leaf)
        leaves.append(InlineBytes(b"".join(bytes(chunk) for chunk in chunks)))
    return Task(
        run_id=ids.new_run_id(name),
        name=name,
        owner="ada@test",
        model=KerasModel(InlineText(captured.config.decode()), InlineBytes(captured.state), model_name=captured.model_name),
        data=ArraysData(captured.structure, list(leaves), captured.rows),
        fit=captured.fit,
        callbacks=captured.callbacks,
        seed=captured.seed,
        versions=captured.versions,
        dtype_policy=captured.dtype_policy,
        requirements=requirements or captured.requirements,
    )


def submit(
    log: Log, name: str = "digits", rows: int = 256, epochs: int = 3, model: Any = None, task: Task | None = None, **fit: Any
) -> Submission:
    task = task or task_of(model or mlp(), name, rows, epochs, **fit)
    place = log.write_task(task)
    log.write_control(
        control.Submitted(
            run_id=task.run_id, task=place, name=name, owner=task.owner, epochs=task.fit.epochs, requirements=task.requirements
        )
    )
    return Submission(log, task.run_id, task)


def endless_task(name: str) -> Task:
    """One that goes on until somebody ends it, and leaves the processor to the others."""
    return task_of(mlp(), name, 64, ENDLESS, callbacks=[paced()])


def endless(log: Log, name: str = "endless") -> Submission:
    """The run of an `endless_task`, whose Task and Submitted are acked."""
    return submit(log, name, task=endless_task(name))
