"""Words and figures of a run, as card and terminal show them; where the front end says them too, both are held to the same cases."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from kafka_jupyter.runs import figures

ROOT = pathlib.Path(__file__).parents[2]
CASES: dict[str, Any] = json.loads((ROOT / "labextension/tests/cases.json").read_text())


def state(**fields: Any) -> dict[str, Any]:
    known = {"run_id": "digits-3f2a9c01b7d4", "state": "RUNNING", "epochs": 20, "initial_epoch": 0, "epochs_done": None}
    return known | {"terminal": fields.get("state") in ("SUCCEEDED", "FAILED", "CANCELLED", "DEAD")} | fields


def epoch(number: int, **metrics: float | None) -> dict[str, Any]:
    return {"type": "epoch", "attempt": 1, "seq": number, "epoch": number, "metrics": metrics}


@pytest.mark.parametrize(("value", "text"), CASES["metric"])
def test_a_metric_reads_as_in_the_front_end(value: float | None, text: str) -> None:
    assert figures.metric(value) == text


@pytest.mark.parametrize(("ms", "text"), CASES["duration"])
def test_a_duration_reads_as_in_the_front_end(ms: int, text: str) -> None:
    assert figures.duration(ms) == text


@pytest.mark.parametrize(("name", "goal"), CASES["goal"])
def test_the_better_direction_is_that_of_the_front_end(name: str, goal: str | None) -> None:
    assert figures.goal(name) == goal


def test_last_and_best_values_are_those_of_the_front_end() -> None:
    lines = figures.metric_lines(figures.epochs_of(CASES["history"]["rows"]))
    assert [[line.name, line.last, line.best, line.best_epoch, line.star] for line in lines] == CASES["history"]["lines"]
    assert [line.name for line in figures.headline(lines)] == CASES["history"]["headline"]


@pytest.mark.parametrize(("fields", "text"), CASES["steer"])
def test_how_a_run_was_paused_or_cancelled_is_said_as_in_the_front_end(fields: dict[str, Any], text: str) -> None:
    assert figures.steer(state(**fields)) == text


@pytest.mark.parametrize(("applied", "text"), CASES["since"])
def test_a_change_is_said_as_in_the_front_end(applied: dict[str, Any] | None, text: str) -> None:
    assert figures.since(applied) == text


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ({"loss": 0.5, "accuracy": 0.9}, ["accuracy", "loss"]),
        ({"loss": 0.5, "mae": 0.3}, ["loss"]),
        ({"mae": 0.3, "learning_rate": 0.1}, ["mae"]),
        ({"loss": None}, []),
    ],
)
def test_the_headline_is_what_people_ask_for_first(metrics: dict[str, float | None], names: list[str]) -> None:
    assert [line.name for line in figures.headline(figures.metric_lines([epoch(0, **metrics)]))] == names


@pytest.mark.parametrize(
    ("fields", "epochs", "text"),
    [
        ({"state": "QUEUED", "queue": 2}, 0, "place 2 in the queue"),
        ({"state": "QUEUED"}, 0, "waiting for a worker"),
        ({"state": "RUNNING"}, 3, "epoch 3 of 20"),
        ({"state": "RUNNING", "epochs": 0}, 3, ""),
        ({"state": "SUCCEEDED", "epochs_done": 20, "started_ms": 1_000, "ended_ms": 18_500}, 20, "20 epochs in 0:17"),
        ({"state": "SUCCEEDED", "epochs_done": 5, "stopped_early": True}, 5, "5 of 20 epochs, stopped early"),
        ({"state": "SUCCEEDED", "epochs_done": 1, "epochs": 1}, 1, "1 epoch"),
        ({"state": "FAILED", "started_ms": 1_000, "ended_ms": 18_500}, 3, "epoch 3 of 20 after 0:17"),
        ({"state": "CANCELLED"}, 0, "epoch 0 of 20"),
    ],
)
def test_how_far_a_run_is_stands_right_of_its_name(fields: dict[str, Any], epochs: int, text: str) -> None:
    assert figures.how_far(state(**fields), [epoch(i) for i in range(epochs)]) == text


def test_the_share_that_is_done_counts_from_the_first_epoch_of_this_fit() -> None:
    assert figures.fraction(state(initial_epoch=10), [epoch(i) for i in range(10, 12)]) == 0.2
    assert figures.fraction(state(epochs=0), [epoch(0)]) == 1.0
    assert figures.fraction(state(state="SUCCEEDED", epochs_done=5), []) == 1.0


@pytest.mark.parametrize("case", CASES["under_way"], ids=lambda case: case["text"])
def test_how_far_a_moving_run_is_and_how_long_it_will_take_is_said_as_in_the_front_end(case: dict[str, Any]) -> None:
    moving, epochs, batch, now = state(**case["run"]), figures.epochs_of(case["rows"]), figures.batch_of(case["rows"]), case["now"]
    assert figures.fraction(moving, epochs, batch) == case["fraction"]
    left = figures.left_ms(moving, epochs, batch, now)
    assert left is None if case["left"] is None else left == pytest.approx(case["left"], abs=1)
    assert figures.under_way(moving, epochs, batch, now) == case["text"]


def test_a_batch_counts_until_its_epoch_or_its_run_has_ended() -> None:
    batch = {"type": "batch", "seq": 1, "epoch": 0, "step": 10, "steps": 40}
    assert figures.batch_of([batch, epoch(0)]) is None
    assert figures.batch_of([epoch(0), batch, {"type": "line"}]) is batch
    assert figures.fraction(state(state="FAILED", epochs=1), [], batch) == 0.0


def test_a_time_that_cannot_be_is_not_reckoned_with() -> None:
    assert figures.left_ms(state(attempt=1), [epoch(0) | {"seconds": 1e308, "at_ms": 0}], None, 1) is None


def test_of_many_rows_a_few_are_chosen_evenly_the_first_and_the_last_among_them() -> None:
    assert [row["epoch"] for row in figures.thinned([epoch(i) for i in range(101)], 5)] == [0, 25, 50, 75, 100]
    assert len(figures.thinned([epoch(i) for i in range(4)], 5)) == 4
