"""What holds of the fold for any records in any order, also for those that no honest process would write."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import Placed, RunState, State, apply, mark_newer
from tests.support.log_checker import Entry, RunChecker, essence
from tests.support.records import RUN, TASK, claimed, fold, of_attempt, submitted

# Small domains, so that records meet: three attempts, two workers, two nonces, three requests.
NUMBERS = {"n": st.integers(0, 3), "worker": st.sampled_from("vw"), "nonce": st.sampled_from("xy")}
PLACES = {"epoch": st.integers(-1, 3), "step": st.integers(0, 2)}
REQUEST = {"request_id": st.sampled_from("abc"), "by": st.sampled_from(["", "ada"])}


def _of(kind: type[control.Record], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[control.Record]:
    return st.builds(kind, run_id=st.just(RUN), **fields)


ANY_RECORD = st.one_of(
    _of(control.Submitted, task=st.just(TASK), keep_days=st.sampled_from([-1.0, 2.0, 30.0, 1e308])),
    _of(control.Claimed, **NUMBERS, task=st.just(TASK)),
    _of(control.Claimed, **NUMBERS, task=st.just(TASK)),
    _of(control.Started, **NUMBERS, **PLACES, log_offset=st.integers(0, 9)),
    _of(control.Heartbeat, **NUMBERS, **PLACES, beat=st.integers(0, 3)),
    _of(control.Checkpointed, **NUMBERS, **PLACES),
    _of(control.Applied, **NUMBERS, request_id=st.sampled_from("abc")),
    _of(control.Released, **NUMBERS, reason=st.sampled_from(["shutdown", "pause", "unfit", "?"])),
    _of(control.Failed, **NUMBERS, retryable=st.booleans(), reason=st.just("signal")),
    _of(control.Succeeded, **NUMBERS, log_end=st.none() | st.integers(0, 9)),
    _of(control.Cancelled, **NUMBERS),
    _of(control.Expired, n=st.integers(0, 3), after=st.integers(-1, 60)),
    _of(control.TooOld),
    _of(control.Dead),
    *(_of(kind, **REQUEST) for kind in (control.StopRequested, control.CancelRequested, control.PauseRequested, control.ResumeRequested)),
    _of(control.SettingsRequested, **REQUEST, settings=st.dictionaries(st.sampled_from("lr"), st.floats(0, 1))),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Placed]:
    """Records with rising offsets and any append times; half of them made to fit the state that they meet, so that runs get far."""
    placed: list[Placed] = []
    state: RunState | None = None
    offset = -1
    for record in draw(st.lists(ANY_RECORD, max_size=40)):
        attempt = state.open if state else None
        if attempt is not None and draw(st.booleans()):
            if isinstance(record, control.AttemptRecord):
                record = msgspec.structs.replace(record, n=attempt.n, worker=attempt.worker, nonce=attempt.nonce)
            elif isinstance(record, control.Expired):
                record = msgspec.structs.replace(record, n=attempt.n, after=attempt.last)
        elif isinstance(record, control.Claimed) and draw(st.booleans()):
            record = msgspec.structs.replace(record, n=(state.last_n if state else 0) + 1)
        offset += draw(st.integers(1, 3))
        placed.append(Placed(record, offset, draw(st.sampled_from([0, 1_000, 3_000_000_000]))))
        state = apply(state, placed[-1])
    return placed


def _folded(log: list[Placed], state: RunState | None = None) -> RunState | None:
    for placed in log:
        state = apply(state, placed)
    return state


def _through_json(state: RunState | None) -> RunState | None:
    return None if state is None else msgspec.json.decode(msgspec.json.encode(state), type=RunState)


@settings(max_examples=400, deadline=None)
@given(logs())
def test_all_rules_hold_for_any_records_in_any_order(log: list[Placed]) -> None:
    checker = RunChecker()
    state: RunState | None = None
    for placed in log:
        after = apply(state, placed)
        entry = Entry(placed.record, placed.offset, placed.time_ms / 1000, 0, state, after)
        assert list(checker.check(entry)) == []
        assert (after.run_id, after.upto) == (RUN, placed.offset)
        assert after.claimable == (fold([claimed(after.last_n + 1)], after).open is not None and after.open is None)
        state = after


@settings(max_examples=200, deadline=None)
@given(logs(), st.data())
def test_a_reader_that_stops_and_goes_on_from_json_gets_the_same_state(log: list[Placed], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    overlap = data.draw(st.integers(0, cut))
    assert _folded(log[cut - overlap :], _through_json(_folded(log[:cut]))) == _folded(log)


@settings(max_examples=200, deadline=None)
@given(logs(), st.data())
def test_a_record_that_counted_means_nothing_the_second_time(log: list[Placed], data: st.DataObject) -> None:
    state: RunState | None = None
    for placed in log:
        after = apply(state, placed)
        assert apply(after, placed) is after, "offsets that were folded in are ignored"
        if after.dropped == (state.dropped if state else 0):
            copy = apply(after, msgspec.structs.replace(placed, offset=placed.offset + 1, time_ms=placed.time_ms))
            assert essence(copy) == essence(after)
        state = after


@given(logs())
def test_a_terminal_state_is_final(log: list[Placed]) -> None:
    ended = fold([submitted(), claimed(), of_attempt(control.Succeeded)])
    later = [msgspec.structs.replace(placed, offset=placed.offset + 10) for placed in log]
    assert essence(_folded(later, ended) or ended) == essence(ended)


@given(logs())
def test_a_record_of_a_newer_version_makes_the_run_read_only_and_nothing_else(log: list[Placed]) -> None:
    state = _folded(log)
    newer = mark_newer(state, RUN, 1000, 7)
    assert newer.newer
    assert not newer.claimable
    assert newer.upto == 1000
    if state is not None:
        assert essence(msgspec.structs.replace(newer, newer=False)) == essence(state)
        assert mark_newer(state, RUN, state.upto, 7) is state
    assert fold([claimed(newer.last_n + 1)], newer).newer, "it stays so"


@pytest.mark.parametrize("kind", control.CONTROL_RECORDS, ids=lambda kind: kind.__name__)
def test_every_type_of_record_has_a_rule_for_a_run_that_nobody_knows(kind: type[control.Record]) -> None:
    made = {
        control.Submitted: submitted(),
        control.Expired: control.Expired(run_id=RUN, n=1, after=0),
        control.TooOld: control.TooOld(run_id=RUN),
        control.Dead: control.Dead(run_id=RUN),
    }
    if issubclass(kind, control.Request):
        record: control.Record = kind(run_id=RUN, request_id="r")
    else:
        record = made[kind] if kind in made else of_attempt(kind)
    state = apply(None, Placed(record, 0, 7))
    expected = {
        control.Claimed: State.CLAIMED,
        control.StopRequested: State.CANCELLED,
        control.CancelRequested: State.CANCELLED,
        control.PauseRequested: State.PAUSED,
    }
    assert (state.state, state.first_ms, state.upto) == (expected.get(kind, State.QUEUED), 7, 0)
