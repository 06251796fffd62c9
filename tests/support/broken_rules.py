"""Rules that are simpler than the true ones, and what a history shows against each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import Ref
from kafka_jupyter.runs import checkpoints, snapshots
from kafka_jupyter.runs.snapshots import Beginning, Mark, Page, Snapshot
from kafka_jupyter.runs.state import Placed, RunState, State, Wish, apply
from tests.support.simulated_rules import Bounds, Rules
from tests.support.simulated_store import refs_of

# --- of the fold


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


def a_pause_ends_with_its_attempt(state: RunState | None, placed: Placed) -> RunState:
    """What was released for a pause waits for the next claim."""
    after = apply(state, placed)
    if after.state is State.PAUSED and isinstance(placed.record, control.Released):
        after = msgspec.structs.replace(after, state=State.QUEUED)
    return after


def a_stop_cancels_whoever_waits(state: RunState | None, placed: Placed) -> RunState:
    """A run that nobody has at the moment ends with the request, as under cancel."""
    if state is not None and state.open is None and not state.terminal and isinstance(placed.record, control.StopRequested):
        after = apply(msgspec.structs.replace(state, checkpoints=()), placed)
        return msgspec.structs.replace(after, checkpoints=state.checkpoints)
    return apply(state, placed)


def any_checkpoint_is_progress(state: RunState | None, placed: Placed) -> RunState:
    """Also one that is not higher than those before forgives what went wrong."""
    if state is not None and not state.terminal and isinstance(placed.record, control.Checkpointed):
        state = msgspec.structs.replace(state, progress=None)
    return apply(state, placed)


def a_copy_is_a_checkpoint(state: RunState | None, placed: Placed) -> RunState:
    """The last two that came are the last two, also if one of them is a copy."""
    after = apply(state, placed)
    record, attempt = placed.record, after.open
    its_own = attempt is not None and isinstance(record, control.AttemptRecord) and record.nonce == attempt.nonce and record.n == attempt.n
    if its_own and isinstance(record, control.Checkpointed) and record not in after.checkpoints:
        after = msgspec.structs.replace(after, checkpoints=(*after.checkpoints, record)[-2:])
    return after


def copies_keep_alive(state: RunState | None, placed: Placed) -> RunState:
    """A heartbeat that came before is as good as a new one."""
    if state is not None and state.open is not None and isinstance(placed.record, control.Heartbeat):
        state = msgspec.structs.replace(state, open=msgspec.structs.replace(state.open, beat=0))
    return apply(state, placed)


def a_superseded_one_keeps_no_names(state: RunState | None, placed: Placed) -> RunState:
    """Whoever superseded it will have deleted it."""
    after = apply(state, placed)
    return msgspec.structs.replace(after, superseded=())


# --- of what may be deleted


def all_but_the_last_two(state: RunState) -> list[Ref]:
    """The best one is no exception."""
    needed = {ref for checkpoint in state.checkpoints for ref in refs_of(checkpoint)}
    best = () if state.best is None else refs_of(state.best)
    return [*checkpoints.disposable(state), *(ref for ref in best if ref not in needed)]


def all_but_the_last(state: RunState) -> list[Ref]:
    """Whoever has a newer one needs no older one."""
    return [*checkpoints.disposable(state), *(ref for checkpoint in state.checkpoints[:-1] for ref in refs_of(checkpoint))]


# --- of what a resumed training applies again


def _place(record: control.Applied | control.Checkpointed) -> tuple[int, int]:
    return record.epoch, record.step


def each_change_at_its_place(state: RunState, checkpoint: control.Checkpointed | None) -> list[control.Applied]:
    """Whatever the checkpoint does not hold, at the same step again."""
    lacks = [one for one in state.applications if checkpoint is None or _place(one) >= _place(checkpoint) or one.n > checkpoint.n]
    return sorted(lacks, key=_place)


def what_lies_behind_the_checkpoint(state: RunState, checkpoint: control.Checkpointed | None) -> list[control.Applied]:
    """As the true rule, but a checkpoint holds all that was applied before its place."""
    changes: list[control.Applied] = []
    for change in state.applications:
        changes = [*(one for one in changes if _place(one) <= _place(change)), change]
    return [one for one in changes if checkpoint is None or _place(one) >= _place(checkpoint)]


# --- of where a reader may begin


def behind_the_mark(records: Iterable[snapshots.Record], bounds: Bounds, partition_of: Callable[[str], int]) -> Beginning:
    """The mark says that everything before it has been written down."""
    known = list(records)
    true = snapshots.beginning(known, bounds, partition_of)
    marks = {mark.partition: mark.upto + 1 for mark in known if isinstance(mark, Mark)}
    return Beginning(true.states, {p: max(low, marks.get(p, low)) for p, (low, _) in bounds.items()}, true.gone)


def live_states_are_of_the_mark(records: Iterable[snapshots.Record], bounds: Bounds, partition_of: Callable[[str], int]) -> Beginning:
    """A snapshot stands in the topic when the mark does: so it speaks of the run up to there."""
    known = list(records)
    marks = {mark.partition: mark.upto for mark in known if isinstance(mark, Mark)}
    known = [msgspec.structs.replace(r, through=marks.get(r.partition, -1)) if isinstance(r, Snapshot) else r for r in known]
    return snapshots.beginning(known, bounds, partition_of)


def the_newest_key_counts(records: Iterable[snapshots.Record], bounds: Bounds, partition_of: Callable[[str], int]) -> Beginning:
    """What was written last about a run, whether it says that the run has ended or that it lives."""
    newest: dict[str, snapshots.Record] = {}
    for record in records:
        if isinstance(record, Page):
            newest |= {state.run_id: Snapshot(record.partition, state) for state in record.states}
        else:
            newest[record.state.run_id if isinstance(record, Snapshot) else ""] = record
    return snapshots.beginning(newest.values(), bounds, partition_of)


BROKEN: dict[str, tuple[Rules, str]] = {
    rule.__name__: (Rules(apply=rule), violation)
    for rule, violation in {
        claims_ignore_the_wish: "W1",
        expired_needs_no_after: "L1",
        claims_need_no_number: "I2",
        records_need_no_nonce: "I2",
        requests_count_every_time: "D1",
        submitted_always_queues: "I5",
        ends_can_be_overtaken: "I1",
        a_pause_ends_with_its_attempt: "W5",
        a_stop_cancels_whoever_waits: "W6",
        any_checkpoint_is_progress: "P1",
        a_copy_is_a_checkpoint: "C1",
        copies_keep_alive: "D2",
        a_superseded_one_keeps_no_names: "C3",
    }.items()
}
BROKEN |= {rule.__name__: (Rules(disposable=rule), "C1") for rule in (all_but_the_last_two, all_but_the_last)}
BROKEN |= {rule.__name__: (Rules(to_replay=rule), "S1") for rule in (each_change_at_its_place, what_lies_behind_the_checkpoint)}
BROKEN |= {rule.__name__: (Rules(beginning=rule), "R") for rule in (behind_the_mark, live_states_are_of_the_mark, the_newest_key_counts)}
BROKEN["what_is_superseded_is_deleted_before_read_back"] = Rules(deletes_after_read_back=False), "C1"
BROKEN["a_mark_does_not_wait_for_the_acks_of_its_snapshots"] = Rules(marks_after_acks=False), "R1"
BROKEN["a_snapshot_speaks_of_the_run_up_to_the_end_of_the_log"] = Rules(through_is_what_was_read=False), "R1"
