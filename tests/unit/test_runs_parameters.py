"""The table of what a run trains, from its Task alone."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kafka_jupyter.protocol.parts import InlineText
from kafka_jupyter.protocol.task import CallbackSpec, FitArguments, Requirements, Task
from kafka_jupyter.runs import parameters as table
from kafka_jupyter.runs.parameters import parameters
from tests.support.playing import task
from tests.support.training import mlp, task_of


def test_it_tells_what_a_person_chose() -> None:
    import keras

    sent = task_of(mlp(optimizer=keras.optimizers.SGD(0.05, momentum=0.9)), "digits", 256, 7, batch_size=32, validation_split=0.1)
    assert isinstance(sent.model.config, InlineText)
    told = parameters(sent, sent.model.config.text.encode())
    expected = {
        "epochs": 7, "batch_size": 32, "optimizer": "SGD", "optimizer.learning_rate": 0.05, "optimizer.momentum": 0.9,
        "loss": "SparseCategoricalCrossentropy", "loss.from_logits": True, "metrics": "accuracy", "validation_split": 0.1, "rows": 256,
        "layer 2 Dense": "units=16, activation=relu", "layer 3 Dense": "units=10", "layer 1 InputLayer": "batch_shape=?×64",
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert list(told)[:3] == ["epochs", "batch_size", "optimizer"]


def test_a_schedule_callbacks_needs_and_labels_are_told() -> None:
    schedule = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 100}}
    document = {"compile": {"optimizer": {"class_name": "Adam", "config": {"learning_rate": schedule, "name": "adam"}}}}
    callbacks = [CallbackSpec("EarlyStopping", {"monitor": "val_loss", "patience": 3, "mode": "auto"})]
    sent = msgspec.structs.replace(
        task("digits-3f2a9c01b7d4"), callbacks=callbacks, labels={"team": "vision"}, requirements=Requirements(device="gpu")
    )
    told = parameters(sent, json.dumps(document).encode())
    assert told["optimizer.learning_rate"] == "CosineDecay"
    assert told["optimizer.learning_rate.decay_steps"] == 100
    assert told["callback EarlyStopping"] == "monitor=val_loss, patience=3"
    assert (told["needs device"], told["label team"]) == ("gpu", "vision")
    assert "optimizer.name" not in told


HOSTILE: list[Any] = [
    b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 100_000, {"model": 7, "compile": []}, {"model": {"config": {"layers": {"a": 1}}}},
    {"model": {"config": {"layers": [None, 7, {"class_name": ["x"], "config": {"units": {"a": 1}, "rate": None}}]}}},
    {"compile": {"optimizer": {"class_name": None, "config": 3}, "loss": [[[]]], "metrics": [None, {"class_name": 3}]}},
    {"compile": {"optimizer": {"class_name": "x" * 10_000, "config": {f"a{i}": i for i in range(10_000)}}}},
    {"model": {"config": {"layers": [{"class_name": "Dense", "config": {"units": i}} for i in range(10_000)]}}},
    {"compile": {"loss": {"class_name": "<img src=x onerror=alert(1)>", "config": {"axis": "\u202e"}}}},
]  # fmt: skip


@pytest.mark.parametrize("config", HOSTILE, ids=range(len(HOSTILE)))
def test_a_table_of_somebody_elses_bytes_is_bounded_and_holds_plain_values(config: Any) -> None:
    sent = msgspec.structs.replace(task("digits-3f2a9c01b7d4"), fit=FitArguments(class_weight={str(i): 1.0 for i in range(10_000)}))
    told = parameters(sent, config if isinstance(config, bytes) else json.dumps(config).encode())
    assert told["epochs"] == 1
    assert len(told) <= table.ROWS_LIMIT
    for name, value in told.items():
        assert len(name) <= table.TEXT_LIMIT
        assert isinstance(value, (str, int, float))
        assert len(str(value)) <= table.TEXT_LIMIT


def nested_schedules(depth: int) -> dict[str, Any]:
    node: dict[str, Any] = {"class_name": "Adam", "config": {}}
    for _ in range(depth):
        node = {"class_name": "Adam", "config": {"learning_rate": node}}
    return node


def test_schedules_within_schedules_do_not_exhaust_the_stack() -> None:
    sent: Task = task("digits-3f2a9c01b7d4")
    assert parameters(sent, json.dumps({"compile": {"optimizer": nested_schedules(150)}}).encode())["optimizer"] == "Adam"
