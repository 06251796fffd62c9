"""The rules of the fold hold in thousands of random histories; rules that are simpler than they look do not."""

from __future__ import annotations

import msgspec
import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import Placed, RunState, State, Wish, apply
from tests.support import simulator

HISTORIES = 6000
SEARCHED = 2000  # histories within which a broken rule must show itself


def claims_ignore_the_wish(state: RunState | None, placed: Placed) -> RunState:
    """Whoever writes the next Claimed gets a paused run."""
    if state is not None and state.state is State.PAUSED and isinstance(placed.record, control.Claimed):
        after = apply(msgspec.structs.replace(state, state=State.QUEUED, wish=Wish.RUN), placed)
        if after.open is not None:
            return msgspec.structs.replace(after, wish=state.wish, state=State.PAUSING)
    return apply(state, placed)


def expired_needs_no_after(state: RunState | None, placed: Placed) -> RunState:
    """An Expired names only its attempt, not the record after which it found silence."""
    record = placed.record
    if state is not None and state.open is not None and isinstance(record, control.Expired):
        record = msgspec.structs.replace(record, after=state.open.last)
    return apply(state, msgspec.structs.replace(placed, record=record))


def claims_need_no_number(state: RunState | None, placed: Placed) -> RunState:
    """Any Claimed opens its attempt if none is open."""
    if state is not None and isinstance(placed.record, control.Claimed):
        after = apply(msgspec.structs.replace(state, last_n=placed.record.n - 1), placed)
        if after.open is not None and state.open is None:
            return after
    return apply(state, placed)


def records_need_no_nonce(state: RunState | None, placed: Placed) -> RunState:
    """A record counts if its attempt and its worker's name are those of the winner."""
    record = placed.record
    if state is not None and state.open is not None and isinstance(record, control.AttemptRecord):
        record = msgspec.structs.replace(record, nonce=state.open.nonce)
    return apply(state, msgspec.structs.replace(placed, record=record))


def requests_count_every_time(state: RunState | None, placed: Placed) -> RunState:
    """The ids of requests are not remembered."""
    if state is not None and not state.terminal and isinstance(placed.record, control.Request):
        state = msgspec.structs.replace(state, known_requests=())
    return apply(state, placed)


def submitted_always_queues(state: RunState | None, placed: Placed) -> RunState:
    """A Submitted makes its run QUEUED, also one that was claimed before."""
    after = apply(state, placed)
    if isinstance(placed.record, control.Submitted) and not after.terminal:
        after = msgspec.structs.replace(after, state=State.QUEUED, open=None)
    return after


def ends_can_be_overtaken(state: RunState | None, placed: Placed) -> RunState:
    """A cancelled run can still be finished by the worker that had it."""
    record = placed.record
    if state is not None and state.state is State.CANCELLED and isinstance(record, control.Succeeded):
        return msgspec.structs.replace(state, state=State.SUCCEEDED, end=record, end_offset=placed.offset, upto=placed.offset)
    return apply(state, placed)


BROKEN: dict[simulator.Apply, str] = {
    claims_ignore_the_wish: "W1",
    expired_needs_no_after: "L1",
    claims_need_no_number: "I2",
    records_need_no_nonce: "I2",
    requests_count_every_time: "D1",
    submitted_always_queues: "I5",
    ends_can_be_overtaken: "I1",
}


@pytest.mark.parametrize("first", range(0, HISTORIES, 1000))
def test_every_rule_holds_in_a_thousand_histories(first: int) -> None:
    assert simulator.violations_of(simulator.tally(range(first, first + 1000))) == []


def test_what_is_rare_happens_in_the_histories() -> None:
    """Else they would prove less than they seem to."""
    missing = {
        "Claimed dropped", "Expired kept", "Expired dropped", "Released dropped", "Cancelled dropped", "Succeeded dropped",
        "Applied kept", "TooOld dropped", "ended SUCCEEDED by Succeeded", "ended FAILED by Failed", "ended FAILED by TooOld",
        "ended DEAD by Failed", "ended DEAD by Expired", "ended CANCELLED by Cancelled", "ended CANCELLED by CancelRequested",
        "ended CANCELLED by StopRequested", "ended CANCELLED by Expired", "ended CANCELLED by Released",
        "ended CANCELLED by Failed",
    }  # fmt: skip
    for first in range(0, HISTORIES, 250):
        missing -= set(simulator.tally(range(first, first + 250)))
        if not missing:
            return
    pytest.fail(f"these never happened: {missing}")


@pytest.mark.parametrize("rules", BROKEN, ids=lambda rules: rules.__name__)
def test_a_simpler_rule_is_refuted_by_a_history(rules: simulator.Apply) -> None:
    found = simulator.search(range(SEARCHED), rules)
    assert found is not None, f"{rules.__name__} held in {SEARCHED} histories"
    assert found.violations[0].startswith(BROKEN[rules])
    assert simulator.play(found.seed).violations == [], "the true rules hold in the same history"


def test_a_history_depends_on_its_seed_only() -> None:
    first, again, other = simulator.play(7), simulator.play(7), simulator.play(8)
    assert [(e.record, e.offset, e.time_s) for e in first.log] == [(e.record, e.offset, e.time_s) for e in again.log]
    assert first.states == again.states
    assert [e.offset for e in first.log] != [e.offset for e in other.log]
