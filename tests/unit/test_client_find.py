"""Which run a person means."""

from __future__ import annotations

import pytest

from kafka_jupyter.client.find import find, short_name
from kafka_jupyter.errors import RunAmbiguous, RunNotFound
from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import RunState


def run(run_id: str, name: str, owner: str = "ada", at_ms: int = 1) -> RunState:
    submitted = control.Submitted(run_id=run_id, task=control.TaskPlace("task", 0, 0), name=name, owner=owner)
    return RunState(run_id=run_id, submitted=submitted, submitted_ms=at_ms, first_ms=at_ms)


RUNS = [
    run("digits-3f2a9c01b7d4", "digits", at_ms=5),
    run("digits-3f7700000000", "digits", at_ms=9),
    run("digits-aa0000000000", "digits", owner="bob", at_ms=20),
    run("digits-wide-77aa00000000", "Digits wide", at_ms=2),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits-3f2a9c01b7d4", "digits-3f2a9c01b7d4"),
        ("digits-3f2a", "digits-3f2a9c01b7d4"),
        ("3f2a", "digits-3f2a9c01b7d4"),
        ("77aa", "digits-wide-77aa00000000"),
        ("digits-w", "digits-wide-77aa00000000"),
        ("digits", "digits-3f7700000000"),  # my newest of that name, not bob's newer one
        (" Digits wide ", "digits-wide-77aa00000000"),
        ("aa00", "digits-aa0000000000"),
    ],
)
def test_an_id_a_unique_beginning_or_my_newest_of_that_name_is_found(text: str, expected: str):
    assert find(RUNS, text, "ada").run_id == expected


def test_an_ambiguous_beginning_names_the_candidates():
    with pytest.raises(RunAmbiguous) as caught:
        find(RUNS, "3f", "ada")
    assert "digits-3f2a9c01b7d4" in str(caught.value)
    assert "digits-3f7700000000" in str(caught.value)


@pytest.mark.parametrize(("text", "near"), [("digts-3f2a", "digits-3f2a9c01b7d4"), ("digits-3f2a9c01b7d5", "digits-3f2a9c01b7d4")])
def test_an_unknown_run_names_the_nearest_ids(text: str, near: str):
    with pytest.raises(RunNotFound) as caught:
        find(RUNS, text, "ada")
    assert near in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "   ", "completely else"])
def test_without_anything_near_the_newest_are_named(text: str):
    with pytest.raises(RunNotFound, match="newest: digits-aa0000000000"):
        find(RUNS, text, "ada")
    with pytest.raises(RunNotFound, match="No run has been submitted here yet"):
        find([], text, "ada")


def test_a_short_name_leads_back_to_the_run():
    for state in RUNS:
        assert find(RUNS, short_name(state.run_id), "ada") is state
