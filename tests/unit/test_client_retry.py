"""What a retry takes along from the run before it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kafka_jupyter import errors
from kafka_jupyter.client import retry
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import InlineBytes
from kafka_jupyter.protocol.task import ArraysData
from tests.support.playing import task as made
from tests.support.records import claimed, fold, of_attempt, request, submitted

BEGUN = [submitted(), claimed(), of_attempt(control.Started)]
WEIGHTS = {"state": InlineBytes(b"weights")}


def asked(rate: Any, request_id: str = "r") -> control.Record:
    record: control.SettingsRequested = request(control.SettingsRequested, request_id=request_id, settings={"learning_rate": rate})
    return record


def applied(rate: float, epoch: int, step: int) -> list[control.Record]:
    named: dict[str, Any] = {"request_id": f"{rate}", "settings": {"learning_rate": rate}}
    return [asked(rate, f"{rate}"), of_attempt(control.Applied, **named, epoch=epoch, step=step)]


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        ([], None),
        (applied(0.1, 1, 3), None),  # the checkpoint holds it
        (applied(0.1, 2, 3), 0.1),
        ([*applied(0.1, 2, 3), *applied(0.2, 2, 5)], 0.2),
        ([*applied(0.1, 2, 3), asked(0.3)], 0.3),
        ([*applied(0.1, 2, 3), asked("fast"), request(control.SettingsRequested, settings={"check_loss": 2.0})], 0.1),
    ],
    ids=["nothing", "in front", "behind", "two", "not applied yet", "no rates"],
)
def test_the_last_rate_that_was_asked_for_goes_along_unless_the_checkpoint_holds_it(told: list[control.Record], rate: float | None) -> None:
    state = fold([*BEGUN, *told, of_attempt(control.Checkpointed, epoch=2, parts=WEIGHTS), of_attempt(control.Failed, retryable=False)])
    assert retry.rate_left(state) == rate
    kept = retry.settings("digits-0000", retry.Edits(learning_rate=0.5), "ada", state)
    assert kept is not None
    assert kept.settings == {"learning_rate": 0.5}, "what a person asks for now comes first"


DATASET = {"dataset": {"elements": 3, "element": {"column": [0, 1]}}}
LEAF = {"leaf": 0}


@pytest.mark.parametrize("x", [DATASET, {"dict": {"a": LEAF, "b": DATASET}}, {"list": [LEAF, {"tuple": [DATASET]}]}], ids=str)
def test_another_batch_size_is_refused_where_the_batches_are_made_already(x: Any) -> None:
    task = msgspec.structs.replace(made("digits-0000"), data=ArraysData({"v": 1, "x": x}, []))
    with pytest.raises(errors.BadWish, match=r"batch size of 16: it was trained from a tf\.data\.Dataset"):
        retry.edited(task, retry.Edits(batch_size=16))
    assert retry.edited(task, retry.Edits(epochs=9)).fit.epochs == 9


@pytest.mark.parametrize("x", [None, LEAF, {"dict": {"dataset": LEAF}}, {"tuple": [LEAF, None]}], ids=str)
def test_arrays_may_be_cut_into_other_batches(x: Any) -> None:
    task = msgspec.structs.replace(made("digits-0000"), data=ArraysData({"v": 1, "x": x, "validation_data": DATASET}, []))
    assert retry.edited(task, retry.Edits(batch_size=16)).fit.batch_size == 16
