"""The rules of the fold hold in a hundred thousand random histories; rules that are simpler than they look do not."""

from __future__ import annotations

import pytest

from tests.support import simulator
from tests.support.broken_rules import BROKEN

HISTORIES = 100_000
PART = 2_000  # a test; the processes share them
SEARCHED = 6_000  # histories within which a broken rule must show itself


@pytest.mark.parametrize("first", range(0, HISTORIES, PART))
def test_every_rule_holds_in_two_thousand_histories(first: int) -> None:
    assert simulator.violations_of(simulator.tally(range(first, first + PART))) == []


def test_what_is_rare_happens_in_the_histories() -> None:
    """Else they would prove less than they seem to."""
    missing = {
        "Claimed dropped", "Expired kept", "Expired dropped", "Released dropped", "Cancelled dropped", "Succeeded dropped",
        "Applied kept", "TooOld dropped", "ended SUCCEEDED by Succeeded", "ended FAILED by Failed", "ended FAILED by TooOld",
        "ended DEAD by Failed", "ended DEAD by Expired", "ended CANCELLED by Cancelled", "ended CANCELLED by CancelRequested",
        "ended CANCELLED by StopRequested", "ended CANCELLED by Expired", "ended CANCELLED by Released",
        "ended CANCELLED by Failed", "Dead dropped", "Checkpointed dropped", "deleted checkpoints", "went on from the last checkpoint",
        "went on from the one before", "changes applied again", "a claimer published a checkpoint", "retention took records",
        "a reader began behind the start",
    }  # fmt: skip
    for first in range(0, 10_000, 250):
        missing -= set(simulator.tally(range(first, first + 250)))
        if not missing:
            return
    pytest.fail(f"these never happened: {missing}")


@pytest.mark.parametrize("name", BROKEN)
def test_a_simpler_rule_is_refuted_by_a_history(name: str) -> None:
    rules, violation = BROKEN[name]
    found = simulator.search(range(SEARCHED), rules, violation)
    assert found is not None, f"{name} held in {SEARCHED} histories"
    assert simulator.play(found.seed).violations == [], "the true rules hold in the same history"


def test_a_history_depends_on_its_seed_only() -> None:
    first, again, other = simulator.play(7), simulator.play(7), simulator.play(8)
    assert [(e.record, e.offset, e.time_s) for e in first.log] == [(e.record, e.offset, e.time_s) for e in again.log]
    assert first.states == again.states
    assert [e.offset for e in first.log] != [e.offset for e in other.log]
