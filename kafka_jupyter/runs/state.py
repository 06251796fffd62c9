"""`apply`: a run is a fold over its `run_control` records in log order (design §2.2). The rules are wire format.

    RunState = fold(apply, records in log order)

Rule numbers in comments are those of the design. Each record type has one small function here; a function that returns None has
dropped its record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.topics import DAY_MS
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.values import TERMINAL, WAITING, Attempt, Placed, RunState, Start, State, Wish

__all__ = [
    "TERMINAL", "WAITING", "Attempt", "Placed", "RunState", "Start", "State", "Wish", "apply", "mark_newer", "too_old_ms",
]  # fmt: skip

FAILURES_IN_ROW = 3  # Failed-retryable without progress → DEAD (rule 7)
EXPIRIES_IN_ROW = 6  # Expired without progress → DEAD
COUNTED_ATTEMPTS = 20  # attempts that ended in Failed-retryable, Expired or Released("unfit") → DEAD
TOO_OLD_MARGIN_DAYS = 2.0  # a run is ended this long before retention takes its first records
CHANGES = frozenset({"learning_rate"})  # settings that a resumed training must apply again; others only ask
DEFAULT_KEEP_DAYS = 30.0  # for a run whose Submitted nobody has seen

Rule = Callable[[RunState, Placed], RunState | None]


def apply(state: RunState | None, placed: Placed) -> RunState:
    """The state after one more record. Pure and total: any record in any order gives a state, a useless one only raises `dropped`."""
    record = placed.record
    if state is None:
        state = RunState(run_id=record.run_id, first_ms=placed.time_ms)
    if placed.offset <= state.upto:
        return state
    after = None if state.terminal else _RULES[type(record)](state, placed)
    if after is None:
        return _with(state, upto=placed.offset, dropped=state.dropped + 1)
    return _with(after, upto=placed.offset)


def mark_newer(state: RunState | None, run_id: str, offset: int, time_ms: int) -> RunState:
    """The state after a record that only a newer version can read: the run becomes read-only for this reader (rule 12)."""
    state = state or RunState(run_id=run_id, first_ms=time_ms)
    return state if offset <= state.upto else _with(state, upto=offset, newer=True)


def _with(state: RunState, /, **changes: Any) -> RunState:
    return msgspec.structs.replace(state, **changes)


def _shown(wish: Wish, attempt: Attempt) -> State:
    """The state of a run with an open attempt is a function of the wish and of Started."""
    if wish is Wish.RUN:
        return State.RUNNING if attempt.started else State.CLAIMED
    return {Wish.PAUSE: State.PAUSING, Wish.STOP: State.STOPPING, Wish.CANCEL: State.CANCELLING}[wish]


def _end(state: RunState, how: State, placed: Placed, /, **changes: Any) -> RunState:
    return _with(state, state=how, open=None, end=placed.record, end_ms=placed.time_ms, end_offset=placed.offset, **changes)


# --- the client's record


def _submitted(state: RunState, placed: Placed) -> RunState | None:
    """Rule 4: fills in fields. (A run nobody knew is QUEUED already, see `apply`.)"""
    record = placed.record
    assert isinstance(record, control.Submitted)
    if state.submitted is not None:
        return None
    return _with(state, submitted=record, submitted_ms=placed.time_ms, submitter=placed.kid, task=state.task or record.task)


# --- records of an attempt


def _claimed(state: RunState, placed: Placed) -> RunState:
    """Rule 1. A claim that does not win still leaves its task ref. Its worker has given it up by then: no copy of it wins later."""
    record = placed.record
    assert isinstance(record, control.Claimed)
    state = _with(state, task=state.task or record.task)
    claim = (record.n, record.nonce)
    wins = state.open is None and state.state in WAITING and state.wish in (Wish.RUN, Wish.STOP) and record.n == state.last_n + 1
    if not wins or claim in state.lost_claims:
        may_win_later = record.n > state.last_n and claim not in state.lost_claims
        lost = (*state.lost_claims, claim) if may_win_later else state.lost_claims
        return _with(state, dropped=state.dropped + 1, lost_claims=lost)
    attempt = Attempt(record.n, record.worker, record.nonce, placed.time_ms, placed.offset, placed.time_ms, kid=placed.kid)
    lost = tuple(claim for claim in state.lost_claims if claim[0] > record.n)
    return _with(state, state=_shown(state.wish, attempt), open=attempt, last_n=record.n, lost_claims=lost)


def _of_winner(rule: Callable[[RunState, Placed, Attempt], RunState | None]) -> Rule:
    """Rule 2: a record of attempt n counts only while n is open, and only with the winner's worker, nonce and key."""

    def checked(state: RunState, placed: Placed) -> RunState | None:
        record, attempt = placed.record, state.open
        assert isinstance(record, control.AttemptRecord)
        if attempt is None:
            return None
        if (record.n, record.worker, record.nonce, placed.kid) != (attempt.n, attempt.worker, attempt.nonce, attempt.kid):
            return None
        return rule(state, placed, msgspec.structs.replace(attempt, last=placed.offset, last_ms=placed.time_ms))

    return checked


def _moved(attempt: Attempt, place: tuple[int, int]) -> Attempt:
    """An attempt only moves forward: a record that comes late or twice does not set it back."""
    epoch, step = max(place, (attempt.epoch, attempt.step))
    return msgspec.structs.replace(attempt, epoch=epoch, step=step)


def _started(state: RunState, placed: Placed, attempt: Attempt) -> RunState | None:
    record = placed.record
    assert isinstance(record, control.Started)
    if attempt.started:  # sent again until read back, or copied by somebody else: the first one said where the rows begin
        return None
    start = Start(
        n=record.n,
        worker=record.worker,
        nonce=record.nonce,
        epoch=record.epoch,
        step=record.step,
        log_offset=record.log_offset,
        device=record.device,
        host=record.host,
        at_ms=placed.time_ms,
        offset=placed.offset,
        kid=placed.kid,
    )
    attempt = _moved(msgspec.structs.replace(attempt, started=True), start.place)
    return _with(state, open=attempt, state=_shown(state.wish, attempt), starts=(*state.starts, start))


def _heartbeat(state: RunState, placed: Placed, attempt: Attempt) -> RunState | None:
    record = placed.record
    assert isinstance(record, control.Heartbeat)
    if attempt.beat and record.beat <= attempt.beat:  # a copy says nothing of how its worker is by now
        return None
    return _with(state, open=_moved(msgspec.structs.replace(attempt, beat=record.beat), (record.epoch, record.step)))


def _checkpointed(state: RunState, placed: Placed, attempt: Attempt) -> RunState | None:
    record = placed.record
    assert isinstance(record, control.Checkpointed)
    place = (record.epoch, record.step)
    last = state.checkpoints[-1] if state.checkpoints else None
    if last is not None and (record.n, place) <= (last.n, (last.epoch, last.step)):
        return None  # a copy: it must not push out the one before, nor keep its attempt alive
    state = checkpoints.with_one_more(_with(state, open=_moved(attempt, place)), record)
    if state.progress is not None and place <= state.progress:
        return state
    return _with(state, progress=place, failures_in_row=0, expiries_in_row=0)


def _applied(state: RunState, placed: Placed, attempt: Attempt) -> RunState | None:
    record = placed.record
    assert isinstance(record, control.Applied)
    if record.request_id in state.applied:  # sent again, copied, or by a later attempt: what counts is where it was applied first
        return None
    applications = (*state.applications, record) if CHANGES & record.settings.keys() else state.applications
    return _with(state, open=attempt, applied=(*state.applied, record.request_id), applications=applications)


def _succeeded(state: RunState, placed: Placed, _attempt: Attempt) -> RunState:
    return _end(state, State.SUCCEEDED, placed)  # whatever the wish


def _cancelled(state: RunState, placed: Placed, _attempt: Attempt) -> RunState:
    return _end(state, State.CANCELLED, placed)


def _failed(state: RunState, placed: Placed, _attempt: Attempt) -> RunState:
    record = placed.record
    assert isinstance(record, control.Failed)
    state = _with(state, last_failure=record)
    if not record.retryable:
        return _end(state, State.CANCELLED if state.wish is Wish.CANCEL else State.FAILED, placed)
    counts = {"failures_in_row": state.failures_in_row + 1, "counted_attempts": state.counted_attempts + 1}
    return _close(_with(state, **counts), placed, State.RETRYING)


def _released(state: RunState, placed: Placed, _attempt: Attempt) -> RunState:
    record = placed.record
    assert isinstance(record, control.Released)
    state = _with(state, last_release=record)
    if record.reason == "unfit":
        unfit = state.unfit if record.worker in state.unfit else (*state.unfit, record.worker)
        state = _with(state, unfit=unfit, counted_attempts=state.counted_attempts + 1)
    return _close(state, placed, State.QUEUED)


def _close(state: RunState, placed: Placed, otherwise: State) -> RunState:
    """Rule 3: the attempt is over; rule 7 first, then the wish decides."""
    if state.failures_in_row >= FAILURES_IN_ROW or state.expiries_in_row >= EXPIRIES_IN_ROW or state.counted_attempts >= COUNTED_ATTEMPTS:
        return _end(state, State.DEAD, placed)
    if state.wish is Wish.CANCEL or (state.wish is Wish.STOP and not state.checkpoints):
        return _end(state, State.CANCELLED, placed)
    return _with(state, open=None, state=State.PAUSED if state.wish is Wish.PAUSE else otherwise)


# --- reapers


def _expired(state: RunState, placed: Placed) -> RunState | None:
    """Rule 6: counts only if the attempt has not spoken since the record that the reaper saw last."""
    record = placed.record
    assert isinstance(record, control.Expired)
    if state.open is None or record.n != state.open.n or record.after != state.open.last:
        return None
    counts = {"expiries_in_row": state.expiries_in_row + 1, "counted_attempts": state.counted_attempts + 1}
    return _close(_with(state, **counts), placed, State.LOST)


def _too_old(state: RunState, placed: Placed) -> RunState | None:
    """Judged by append times only, so that every reader agrees."""
    return _end(state, State.FAILED, placed) if placed.time_ms >= too_old_ms(state) else None


def too_old_ms(state: RunState) -> float:
    """The append time from which a TooOld ends the run."""
    keep = state.submitted.keep_days if state.submitted else DEFAULT_KEEP_DAYS
    born = state.born_ms
    return born + (keep - TOO_OLD_MARGIN_DAYS) * DAY_MS


def _dead(state: RunState, _placed: Placed) -> RunState:
    """A consequence that reapers append for other readers of the topic: the fold has said DEAD itself."""
    return state


# --- people


def _request(rule: Rule) -> Rule:
    """A request whose id is known means nothing."""

    def checked(state: RunState, placed: Placed) -> RunState | None:
        record = placed.record
        assert isinstance(record, control.Request)
        if record.request_id in state.known_requests:
            return None
        return rule(_with(state, known_requests=(*state.known_requests, record.request_id)), placed)

    return checked


def _wish(state: RunState, wish: Wish, by: str = "") -> RunState:
    """A new wish for a run with an open attempt."""
    assert state.open is not None
    return _with(state, wish=wish, state=_shown(wish, state.open), ended_by=by or state.ended_by)


def _cancel(state: RunState, placed: Placed) -> RunState:
    record = placed.record
    assert isinstance(record, control.CancelRequested)
    if state.open is None:
        return _end(state, State.CANCELLED, placed, wish=Wish.CANCEL, ended_by=record.by)
    return _wish(state, Wish.CANCEL, record.by)


def _stop(state: RunState, placed: Placed) -> RunState:
    record = placed.record
    assert isinstance(record, control.StopRequested)
    if state.wish is Wish.CANCEL:
        return state
    if state.open is not None:
        return _wish(state, Wish.STOP, record.by)
    if not state.checkpoints:
        return _end(state, State.CANCELLED, placed, wish=Wish.STOP, ended_by=record.by)
    # Somebody must still publish the last checkpoint: a paused run has to become claimable again.
    waiting = State.QUEUED if state.state is State.PAUSED else state.state
    return _with(state, wish=Wish.STOP, state=waiting, ended_by=record.by)


def _pause(state: RunState, _placed: Placed) -> RunState:
    if state.wish in (Wish.STOP, Wish.CANCEL):
        return state
    if state.open is not None:
        return _wish(state, Wish.PAUSE)
    return _with(state, wish=Wish.PAUSE, state=State.PAUSED)


def _resume(state: RunState, _placed: Placed) -> RunState:
    if state.wish in (Wish.STOP, Wish.CANCEL):
        return state
    if state.open is not None:
        return _wish(state, Wish.RUN)
    return _with(state, wish=Wish.RUN, state=State.QUEUED if state.state is State.PAUSED else state.state)


def _settings(state: RunState, placed: Placed) -> RunState:
    record = placed.record
    assert isinstance(record, control.SettingsRequested)
    return _with(state, settings=(*state.settings, record))


_RULES: dict[type[control.Record], Rule] = {
    control.Submitted: _submitted,
    control.Claimed: _claimed,
    control.Started: _of_winner(_started),
    control.Heartbeat: _of_winner(_heartbeat),
    control.Checkpointed: _of_winner(_checkpointed),
    control.Applied: _of_winner(_applied),
    control.Released: _of_winner(_released),
    control.Failed: _of_winner(_failed),
    control.Succeeded: _of_winner(_succeeded),
    control.Cancelled: _of_winner(_cancelled),
    control.Expired: _expired,
    control.TooOld: _too_old,
    control.Dead: _dead,
    control.StopRequested: _request(_stop),
    control.CancelRequested: _request(_cancel),
    control.PauseRequested: _request(_pause),
    control.ResumeRequested: _request(_resume),
    control.SettingsRequested: _request(_settings),
}
