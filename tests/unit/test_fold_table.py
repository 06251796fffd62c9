"""The table of design §2.2, cell by cell."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import Placed, RunState, State, Wish, apply
from tests.support.records import RUN, claimed, expired, fold, of_attempt, request, submitted

Cancel, Stop, Pause, Resume, Settings = (
    control.CancelRequested, control.StopRequested, control.PauseRequested, control.ResumeRequested, control.SettingsRequested,
)  # fmt: skip
CHECKPOINT = of_attempt(control.Checkpointed)


def _running(*more: control.Record) -> list[control.Record]:
    return [submitted(), claimed(), of_attempt(control.Started), *more]


SITUATIONS: dict[str, Callable[[], list[control.Record]]] = {
    "QUEUED": lambda: [submitted()],
    "LOST": lambda: _running(expired(after=2)),
    "RETRYING": lambda: _running(of_attempt(control.Failed)),
    "PAUSED": lambda: [submitted(), request(Pause)],
    "CLAIMED": lambda: [submitted(), claimed()],
    "RUNNING": lambda: _running(),
    "PAUSING": lambda: _running(request(Pause)),
    "STOPPING": lambda: _running(request(Stop)),
    "CANCELLING": lambda: _running(request(Cancel)),
}
WITH_CHECKPOINT: dict[str, Callable[[], list[control.Record]]] = {
    "QUEUED": lambda: _running(CHECKPOINT, of_attempt(control.Released)),
    "LOST": lambda: _running(CHECKPOINT, expired(after=3)),
    "RETRYING": lambda: _running(CHECKPOINT, of_attempt(control.Failed)),
    "PAUSED": lambda: _running(CHECKPOINT, request(Pause), of_attempt(control.Released)),
    "CLAIMED": lambda: _running(CHECKPOINT, of_attempt(control.Released), claimed(2)),
    "RUNNING": lambda: _running(CHECKPOINT),
    "PAUSING": lambda: _running(CHECKPOINT, request(Pause)),
    "STOPPING": lambda: _running(CHECKPOINT, request(Stop)),
    "CANCELLING": lambda: _running(CHECKPOINT, request(Cancel)),
}
ENDS: dict[str, Callable[[], list[control.Record]]] = {
    "SUCCEEDED": lambda: _running(of_attempt(control.Succeeded)),
    "FAILED": lambda: _running(of_attempt(control.Failed, retryable=False)),
    "CANCELLED": lambda: [submitted(), request(Cancel)],
    "DEAD": lambda: [r for n in (1, 2, 3) for r in (claimed(n), of_attempt(control.Failed, n))],
}

# A name: the state afterwards.   =: the state stays, the record counts.   -: dropped, nothing but the counter changes.
TABLE = """
                   QUEUED     LOST       RETRYING   PAUSED     CLAIMED    RUNNING    PAUSING    STOPPING   CANCELLING
Submitted          =          =          =          =          =          =          =          =          =
Claimed            CLAIMED    CLAIMED    CLAIMED    -          -          -          -          -          -
Started            -          -          -          -          RUNNING    -          -          -          -
Heartbeat          -          -          -          -          =          =          =          =          =
Checkpointed       -          -          -          -          =          =          =          =          =
Applied            -          -          -          -          =          =          =          =          =
Succeeded          -          -          -          -          SUCCEEDED  SUCCEEDED  SUCCEEDED  SUCCEEDED  SUCCEEDED
Failed-final       -          -          -          -          FAILED     FAILED     FAILED     FAILED     CANCELLED
Cancelled          -          -          -          -          CANCELLED  CANCELLED  CANCELLED  CANCELLED  CANCELLED
Released           -          -          -          -          QUEUED     QUEUED     PAUSED     CANCELLED  CANCELLED
Expired            -          -          -          -          LOST       LOST       PAUSED     CANCELLED  CANCELLED
Failed-retryable   -          -          -          -          RETRYING   RETRYING   PAUSED     CANCELLED  CANCELLED
CancelRequested    CANCELLED  CANCELLED  CANCELLED  CANCELLED  CANCELLING CANCELLING CANCELLING CANCELLING =
StopRequested      CANCELLED  CANCELLED  CANCELLED  CANCELLED  STOPPING   STOPPING   STOPPING   =          =
PauseRequested     PAUSED     PAUSED     PAUSED     =          PAUSING    PAUSING    =          =          =
ResumeRequested    =          =          =          QUEUED     =          =          RUNNING    =          =
SettingsRequested  =          =          =          =          =          =          =          =          =
TooOld-in-time     FAILED     FAILED     FAILED     FAILED     FAILED     FAILED     FAILED     FAILED     FAILED
TooOld-early       -          -          -          -          -          -          -          -          -
Dead               =          =          =          =          =          =          =          =          =
"""
# What a checkpoint changes.
CHECKPOINTED_TABLE = """
                   QUEUED     LOST       RETRYING   PAUSED     CLAIMED    RUNNING    PAUSING    STOPPING   CANCELLING
StopRequested      =          =          =          QUEUED     STOPPING   STOPPING   STOPPING   =          =
Released           -          -          -          -          QUEUED     QUEUED     PAUSED     QUEUED     CANCELLED
Expired            -          -          -          -          LOST       LOST       PAUSED     LOST       CANCELLED
Failed-retryable   -          -          -          -          RETRYING   RETRYING   PAUSED     RETRYING   CANCELLED
"""


def _cells(table: str) -> list[tuple[str, str, str]]:
    head, *rows = [line.split() for line in table.strip().splitlines()]
    return [(row[0], situation, outcome) for row in rows for situation, outcome in zip(head, row[1:], strict=True)]


def _sentence(cell: tuple[str, str, str]) -> str:
    record, situation, outcome = cell
    means = {"=": f"leaves {situation} as it is", "-": f"is dropped in {situation}"}.get(outcome, f"makes {situation} {outcome}")
    return f"{record} {means}"


def _record(name: str, state: RunState) -> control.Record:
    """The record of this row that would count in this state: of its open attempt, or as the next claim."""
    n = state.open.n if state.open else max(state.last_n, 1)
    made: dict[str, Callable[[], control.Record]] = {
        "Submitted": lambda: submitted(name="digits"),
        "Claimed": lambda: claimed(state.last_n + 1),
        "Failed-final": lambda: of_attempt(control.Failed, n, retryable=False, reason="exception"),
        "Failed-retryable": lambda: of_attempt(control.Failed, n),
        "Expired": lambda: expired(state.open.last if state.open else state.upto, n),
        "TooOld-in-time": lambda: control.TooOld(run_id=RUN),
        "TooOld-early": lambda: control.TooOld(run_id=RUN),
        "Dead": lambda: control.Dead(run_id=RUN),
    }
    if name in made:
        return made[name]()
    kind = getattr(control, name)
    return request(kind) if issubclass(kind, control.Request) else of_attempt(kind, n)


def _applied(name: str, records: list[control.Record]) -> tuple[RunState, RunState]:
    before = fold(records)
    if name == "Submitted":
        before = msgspec.structs.replace(before, submitted=None)
    days = 28 if name == "TooOld-in-time" else 27
    return before, apply(before, Placed(_record(name, before), before.upto + 1, 60_000 + days * 86_400_000))


def _check(cell: tuple[str, str, str], situations: dict[str, Callable[[], list[control.Record]]]) -> None:
    name, situation, outcome = cell
    before, after = _applied(name, situations[situation]())
    assert before.state == situation
    assert after.state == (situation if outcome in "=-" else outcome)
    assert (after.dropped > before.dropped) == (outcome == "-")
    if outcome == "-":
        lost = {"lost_claims": ()} if name == "Claimed" else {}  # remembered, so that no copy of it wins
        assert msgspec.structs.replace(after, upto=before.upto, dropped=before.dropped, **lost) == before
    assert after.terminal == (after.state in ENDS)
    assert (after.end is not None) == after.terminal
    assert after.upto == before.upto + 1


@pytest.mark.parametrize("cell", _cells(TABLE), ids=_sentence)
def test_each_record_does_what_the_table_says(cell: tuple[str, str, str]) -> None:
    _check(cell, SITUATIONS)


@pytest.mark.parametrize("cell", _cells(CHECKPOINTED_TABLE), ids=_sentence)
def test_with_a_checkpoint_each_record_does_what_the_table_says(cell: tuple[str, str, str]) -> None:
    _check(cell, WITH_CHECKPOINT)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", [row.split()[0] for row in TABLE.strip().splitlines()[1:]])
def test_after_an_end_nothing_changes(name: str, end: str) -> None:
    before = fold(ENDS[end]())
    assert before.state == end
    after = apply(before, Placed(_record(name, before), before.upto + 1, 99 * 86_400_000))
    assert msgspec.structs.replace(after, upto=before.upto, dropped=before.dropped) == before


OF_THE_WINNER = ("Started", "Heartbeat", "Checkpointed", "Applied", "Succeeded", "Cancelled", "Released", "Failed")


@pytest.mark.parametrize("other", [{"worker": "cpu-2"}, {"nonce": "y"}, {"n": 2}, {"n": 0}], ids=str)
@pytest.mark.parametrize("name", OF_THE_WINNER)
def test_a_record_of_an_attempt_counts_only_from_its_winner(name: str, other: dict[str, object]) -> None:
    before = fold(_running())
    after = fold([of_attempt(getattr(control, name), **other)], before)
    assert msgspec.structs.replace(after, upto=before.upto, dropped=0) == before
    assert after.dropped == 1


@pytest.mark.parametrize("n", [0, 1, 3, -1])
def test_a_claim_wins_only_with_the_next_number(n: int) -> None:
    before = fold(_running(of_attempt(control.Released)))
    assert fold([claimed(n)], before).open is None
    assert fold([claimed(2)], before).open is not None


def test_a_claim_that_loses_still_tells_where_the_task_is() -> None:
    elsewhere = control.TaskPlace("task", 2, 77)
    state = fold([request(Pause), claimed(task=elsewhere)])
    assert (state.open, state.task) == (None, elsewhere)
    assert fold([claimed(), submitted()], state).task == elsewhere, "the first one that is known stays"


@pytest.mark.parametrize("stale", [-1, 1, 3, 99])
def test_an_expired_counts_only_after_the_last_record_of_its_attempt(stale: int) -> None:
    before = fold(_running())
    assert fold([expired(after=stale)], before).state is State.RUNNING
    assert fold([expired(after=2, n=2)], before).state is State.RUNNING
    assert fold([expired(after=2)], before).state is State.LOST


def test_every_accepted_record_of_an_attempt_moves_what_an_expired_must_name() -> None:
    state = fold([submitted(), claimed()])
    for name in ("Started", "Heartbeat", "Checkpointed", "Applied"):
        state = fold([of_attempt(getattr(control, name))], state)
        assert state.open is not None
        assert state.open.last == state.upto
    spoken = fold([request(Settings), submitted(), of_attempt(control.Heartbeat, nonce="y")], state)
    assert spoken.open == state.open, "nobody else can speak for it"


def test_a_claim_under_stop_publishes_the_last_checkpoint() -> None:
    state = fold([*WITH_CHECKPOINT["PAUSED"](), request(Stop), claimed(2)])
    assert (state.state, state.wish) == (State.STOPPING, Wish.STOP)
    assert fold([of_attempt(control.Succeeded, 2, stopped_early=True)], state).state is State.SUCCEEDED


def test_a_claimed_run_that_is_paused_and_resumed_is_claimed_again() -> None:
    assert fold([claimed(), request(Pause), request(Resume)]).state is State.CLAIMED


@pytest.mark.parametrize(
    ("first", "then", "wish"),
    [(Stop, Pause, Wish.STOP), (Stop, Resume, Wish.STOP), (Stop, Cancel, Wish.CANCEL), (Pause, Stop, Wish.STOP),
     (Cancel, Stop, Wish.CANCEL), (Cancel, Pause, Wish.CANCEL), (Cancel, Resume, Wish.CANCEL), (Pause, Resume, Wish.RUN)],
)  # fmt: skip
def test_stop_gives_way_only_to_cancel_and_cancel_to_nothing(first: type[control.Request], then: type[control.Request], wish: Wish) -> None:
    assert fold(_running(request(first), request(then))).wish is wish


def test_a_request_with_a_known_id_means_nothing() -> None:
    state = fold(_running(request(Pause, request_id="a"), request(Resume, request_id="b")))
    assert fold([request(Pause, request_id="a")], state).state is State.RUNNING


@pytest.mark.parametrize(("kind", "end"), [(Stop, "CANCELLED"), (Cancel, "CANCELLED")])
def test_a_request_for_a_run_that_nobody_knew_counts(kind: type[control.Request], end: str) -> None:
    state = fold([request(kind), submitted(), claimed()])
    assert (state.state, state.ended_by) == (end, "ada")


def test_a_pause_before_the_first_claim_keeps_everybody_from_claiming() -> None:
    state = fold([request(Pause), submitted(), claimed()])
    assert (state.state, state.open, state.claimable) == (State.PAUSED, None, False)
    assert fold([request(Resume), claimed(nonce="again")], state).state is State.CLAIMED


def test_a_late_submitted_fills_in_fields_and_the_first_one_stays() -> None:
    state = fold(_running()[1:] + [submitted(name="first"), submitted(name="second")])
    assert state.state is State.RUNNING
    assert state.submitted is not None
    assert (state.submitted.name, state.submitted_ms) == ("first", 3 * 60_000)


def _attempts(count: int, kind: str, *before_each_end: control.Record) -> RunState:
    state: RunState | None = None
    for n in range(1, count + 1):
        spoken = [msgspec.structs.replace(record, n=n) for record in before_each_end]
        state = fold([claimed(n), *spoken], state)
        assert state.open is not None, f"attempt {n} could not be claimed: {state.state}"
        ends = {"failed": of_attempt(control.Failed, n), "expired": expired(state.open.last, n)}
        state = fold([ends.get(kind) or of_attempt(control.Released, n, reason=kind)], state)
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("kind", "limit", "waits"), [("failed", 3, State.RETRYING), ("expired", 6, State.LOST), ("unfit", 20, State.QUEUED)]
)
def test_a_run_is_dead_after_so_many_attempts_without_progress(kind: str, limit: int, waits: State) -> None:
    assert _attempts(limit - 1, kind).state is waits
    dead = _attempts(limit, kind)
    assert (dead.state, dead.claimable) == (State.DEAD, False)
    assert fold([claimed(limit + 1)], dead).open is None


@pytest.mark.parametrize("reason", ["shutdown", "pause", "unwanted"])
def test_a_released_for_other_reasons_never_counts(reason: str) -> None:
    assert _attempts(30, reason).state is State.QUEUED


@pytest.mark.parametrize(("kind", "waits"), [("failed", State.RETRYING), ("expired", State.LOST)])
def test_progress_forgives_but_not_without_end(kind: str, waits: State) -> None:
    state: RunState | None = None
    for n in range(1, 21):
        state = fold([claimed(n), of_attempt(control.Checkpointed, n, epoch=n)], state)
        assert state.open is not None
        state = fold([of_attempt(control.Failed, n) if kind == "failed" else expired(state.open.last, n)], state)
        assert state.state is (waits if n < 20 else State.DEAD)


def test_a_checkpoint_that_is_not_higher_is_no_progress() -> None:
    assert _attempts(2, "failed", of_attempt(control.Checkpointed, epoch=4)).state is State.RETRYING
    assert _attempts(3, "failed", of_attempt(control.Checkpointed, epoch=4)).state is State.DEAD


def test_a_worker_that_is_unfit_is_remembered_once() -> None:
    assert _attempts(3, "unfit").unfit == ("cpu-1",)


def test_the_last_two_checkpoints_are_kept_and_a_copy_does_not_push_one_out() -> None:
    one, two, three = (of_attempt(control.Checkpointed, epoch=epoch) for epoch in (1, 2, 3))
    assert fold(_running(one, two, three)).checkpoints == (two, three)
    assert fold(_running(one, two, two)).checkpoints == (one, two)
    assert fold(_running(one, two, three, one, two)).checkpoints == (two, three)


def test_the_checkpoint_of_a_later_attempt_counts_though_it_is_lower() -> None:
    high, low = of_attempt(control.Checkpointed, epoch=9), of_attempt(control.Checkpointed, 2, epoch=3)
    state = fold(_running(high, of_attempt(control.Failed), claimed(2), low))
    assert (state.checkpoints, state.progress) == ((high, low), (9, 0))


def test_a_copy_of_an_old_record_does_not_set_an_attempt_back() -> None:
    beat = of_attempt(control.Heartbeat, epoch=3, step=7)
    state = fold(_running(beat, of_attempt(control.Heartbeat, epoch=1), of_attempt(control.Started, epoch=1)))
    assert state.open is not None
    assert (state.open.epoch, state.open.step, len(state.starts)) == (3, 7, 1)


def test_a_heartbeat_counts_once_and_an_older_one_never_again() -> None:
    first, second = (of_attempt(control.Heartbeat, beat=beat) for beat in (1, 2))
    state = fold(_running(first, second))
    assert state.open is not None
    spoken = fold([second, first, of_attempt(control.Heartbeat)], state)
    assert spoken.open == state.open
    assert fold([of_attempt(control.Heartbeat, beat=3)], spoken).open != state.open


def test_heartbeats_of_an_old_version_have_no_numbers_and_count() -> None:
    state = fold(_running(of_attempt(control.Heartbeat), of_attempt(control.Heartbeat)))
    assert state.open is not None
    assert (state.open.last, state.dropped) == (state.upto, 0)


@pytest.mark.parametrize("name", [name for name in OF_THE_WINNER if name != "Heartbeat"])
def test_a_copy_of_what_an_attempt_has_said_is_no_sign_of_life(name: str) -> None:
    said = of_attempt(getattr(control, name), **({"log_end": 7} if name in ("Succeeded", "Cancelled", "Released", "Failed") else {}))
    before = fold([submitted(), claimed(), said])
    after = fold([said], before)
    assert msgspec.structs.replace(after, upto=before.upto, dropped=before.dropped) == before


def test_a_claim_that_has_lost_does_not_win_when_it_is_written_once_more() -> None:
    lost, other = claimed(nonce="lost"), claimed(nonce="other")
    paused = fold([submitted(), request(Pause), lost, lost, request(Resume)])
    assert fold([lost], paused).open is None
    assert fold([other], paused).open is not None
    assert paused.lost_claims == ((1, "lost"),)
    assert fold([other], paused).lost_claims == ()
    ahead = fold([submitted(), claimed(), claimed(2, nonce="ahead"), of_attempt(control.Released)])
    assert fold([claimed(2, nonce="ahead")], ahead).open is None


KEY, ANOTHER = "00000000000000aa", "00000000000000bb"


@pytest.mark.parametrize("name", OF_THE_WINNER)
def test_a_record_of_an_attempt_counts_only_under_the_key_of_its_claim(name: str) -> None:
    claim, record = Placed(claimed(), 1, 0, KEY), of_attempt(getattr(control, name))
    before = apply(fold([submitted()]), claim)
    assert before.open is not None
    assert before.open.kid == KEY
    for kid in ("", ANOTHER):
        after = apply(before, Placed(record, 2, 0, kid))
        assert msgspec.structs.replace(after, upto=before.upto, dropped=0) == before
        assert after.dropped == 1
    assert apply(before, Placed(record, 2, 0, KEY)).dropped == 0


def test_a_run_knows_whose_key_submitted_it_and_a_start_whose_key_it_is() -> None:
    state = apply(None, Placed(submitted(), 0, 0, ANOTHER))
    for offset, record in enumerate((claimed(), of_attempt(control.Started)), 1):
        state = apply(state, Placed(record, offset, 0, KEY))
    assert (state.submitter, [start.kid for start in state.starts]) == (ANOTHER, [KEY])


def test_a_setting_is_applied_once() -> None:
    state = fold(_running(request(Settings, request_id="lr"), *[of_attempt(control.Applied, request_id="lr")] * 2))
    assert (len(state.settings), state.applied) == (1, ("lr",))


def test_the_age_of_a_run_is_judged_by_its_own_keep_days_and_by_append_times() -> None:
    day_ms = 86_400_000
    state = apply(None, Placed(submitted(keep_days=3.0), 0, 5 * day_ms))
    assert apply(state, Placed(control.TooOld(run_id=RUN), 1, 6 * day_ms - 1)).state is State.QUEUED
    assert apply(state, Placed(control.TooOld(run_id=RUN), 1, 6 * day_ms)).state is State.FAILED
    late = apply(apply(None, Placed(claimed(), 0, 0)), Placed(submitted(keep_days=3.0), 1, 5 * day_ms))
    assert apply(late, Placed(control.TooOld(run_id=RUN), 2, 6 * day_ms - 1)).state is State.CLAIMED
    unknown = apply(None, Placed(request(Pause), 0, 0))
    assert apply(unknown, Placed(control.TooOld(run_id=RUN), 1, 28 * day_ms)).state is State.FAILED


def test_the_end_says_where_the_rows_end() -> None:
    assert fold(_running(of_attempt(control.Succeeded, log_end=41))).log_end == 41
    assert fold([submitted(), request(Cancel)]).log_end is None
    assert fold([submitted()]).log_end is None
