"""The ledger knows many runs, and tells who changed."""

from __future__ import annotations

import msgspec
import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from kafka_jupyter.runs import ledger as room
from kafka_jupyter.runs import snapshots
from kafka_jupyter.runs.ledger import Ledger
from kafka_jupyter.runs.snapshots import Beginning
from kafka_jupyter.runs.state import State
from tests.support.records import RUN, claimed, expired, fold, of_attempt, request, submitted


def _named(record: control.Record, run_id: str) -> control.Record:
    return msgspec.structs.replace(record, run_id=run_id)


def _rows(run_id: str, *seqs: int) -> RowBatch:
    return RowBatch(run_id, 1, "cpu-1", "x", [EpochEnded(seq, seq) for seq in seqs])


def test_a_record_changes_its_run_once() -> None:
    ledger = Ledger()
    state = ledger.control(submitted(), 3, 0)
    assert state is ledger.states[RUN]
    assert ledger.control(submitted(), 3, 0) is None
    assert ledger.newer(RUN, 3, 0) is None
    newer = ledger.newer(RUN, 4, 0)
    assert newer is not None
    assert newer.newer
    unknown = ledger.newer("other", 5, 0)
    assert unknown is not None
    assert (unknown.state, unknown.newer) == (State.QUEUED, True)
    assert ledger.waiting() == []


def test_the_newest_come_first_also_when_it_is_told_late_when_one_was_submitted() -> None:
    ledger = Ledger()
    told = {run_id: msgspec.structs.replace(fold([submitted()]), run_id=run_id, submitted_ms=ms) for run_id, ms in (("b", 5), ("a", 9))}
    ledger.begin(Beginning(told, {}, frozenset()))
    for offset, (run_id, time_ms) in enumerate((("d", 7), ("c", 20), ("e", 3))):
        ledger.control(_named(claimed(), run_id), 10 + offset, time_ms)
    assert [state.run_id for state in ledger.newest()] == ["c", "a", "d", "b", "e"]
    ledger.control(_named(submitted(), "d"), 20, 30)
    ledger.control(_named(of_attempt(control.Started), "e"), 21, 40)
    assert [state.run_id for state in ledger.newest()] == ["d", "c", "a", "b", "e"]
    assert [[state.run_id for state in ledger.newest(first, 2)] for first in (0, 3, 4, 5, 99)] == [["d", "c"], ["b", "e"], ["e"], [], []]
    assert [state.run_id for state in ledger.newest(3)] == ["b", "e"]


def test_a_reader_of_the_past_leaves_the_rows_of_what_has_ended_and_knows_that_it_did() -> None:
    ledger = Ledger()
    assert not ledger.leaves_rows(RUN)
    for offset, record in enumerate((submitted(), claimed(), of_attempt(control.Started))):
        ledger.control(record, offset, 0)
    ledger.rows(_rows(RUN, 0))
    assert not ledger.leaves_rows(RUN)
    ledger.control(of_attempt(control.Succeeded), 3, 0)
    assert ledger.leaves_rows(RUN)
    assert ledger.forgotten == {RUN}
    assert ledger.history(RUN).rows == (), "a part of them would look like all"


def test_rows_may_come_before_the_records_of_their_run() -> None:
    ledger = Ledger()
    assert [row.seq for row in ledger.rows(_rows(RUN, 0, 1))] == [0, 1]
    assert ledger.rows(_rows(RUN, 0, 1)) == []
    ledger.control(claimed(), 0, 0)
    assert ledger.history(RUN).rows == ()
    ledger.control(of_attempt(control.Started), 1, 0)
    assert [row.epoch for row in ledger.history(RUN).epochs] == [0, 1]


def test_of_an_attempt_that_broke_off_everything_is_kept_that_it_said() -> None:
    """A later attempt resumes before its last rows: they count no more, but they tell why it broke off."""
    ledger = Ledger()
    told = [submitted(), claimed(), of_attempt(control.Started), of_attempt(control.Failed), claimed(2), of_attempt(control.Started, 2)]
    for offset, record in enumerate(told):
        ledger.control(record, offset, 0)
    assert ledger.rows_of(RUN, 1) == []
    ledger.rows(_rows(RUN, 0, 1))
    assert ledger.history(RUN).rows == ()
    assert [row.seq for row in ledger.rows_of(RUN, 1)] == [0, 1]
    assert ledger.rows_of(RUN, 2) == []


def test_what_waits_is_claimable_and_in_the_log() -> None:
    ledger = Ledger()
    ledger.begin(
        Beginning({"old": fold([_named(submitted(), "old")]), "kept": fold([_named(submitted(), "kept")])}, {0: 9}, frozenset({"old"}))
    )
    ledger.control(_named(submitted(), "new"), 9, 99_000)
    ledger.control(_named(claimed(), "taken"), 10, 0)
    assert [state.run_id for state in ledger.waiting()] == ["kept", "new"]
    assert set(ledger.states) == {"old", "kept", "new", "taken"}


TWICE_TRIED: list[control.Record] = [
    submitted(), claimed(), of_attempt(control.Started), of_attempt(control.Failed), claimed(2), of_attempt(control.Started, 2),
    expired(after=5, n=2), request(control.ResumeRequested), claimed(3), of_attempt(control.Succeeded, 3),
]  # fmt: skip


@pytest.mark.parametrize("taken", range(2, len(TWICE_TRIED)))
def test_what_retention_left_of_a_run_that_ended_is_not_claimed(taken: int) -> None:
    """Nobody has written a snapshot of its end: what is left begins with attempt 2 and would look like a run that waits."""
    ledger = Ledger()
    ledger.begin(snapshots.beginning([], {0: (taken, len(TWICE_TRIED))}, lambda _: 0))
    for offset, record in list(enumerate(TWICE_TRIED))[taken:]:
        ledger.control(record, offset, 0)
    assert ledger.waiting() == []
    assert ledger.gone == {RUN}
    assert ledger.active == {}


@pytest.mark.parametrize("taken", [0, 1])
def test_a_run_of_which_only_the_submitted_is_gone_is_known_well_enough(taken: int) -> None:
    ledger = Ledger()
    ledger.begin(snapshots.beginning([], {0: (taken, len(TWICE_TRIED))}, lambda _: 0))
    for offset, record in list(enumerate(TWICE_TRIED))[taken:]:
        ledger.control(record, offset, 0)
    assert (ledger.states[RUN].state, ledger.gone) == (State.SUCCEEDED, frozenset())


def test_in_a_whole_log_a_record_that_comes_before_its_claim_takes_nothing_away() -> None:
    ledger = Ledger()
    ledger.begin(snapshots.beginning([], {0: (0, 2)}, lambda _: 0))
    ledger.control(of_attempt(control.Started), 0, 0)
    ledger.control(claimed(), 1, 0)
    assert set(ledger.active) == {RUN}


def test_after_an_end_its_run_is_forgotten_once_though_useless_records_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEPT_ENDED", 1)
    ledger = Ledger()
    ledger.begin(Beginning({"old": fold([_named(request(control.CancelRequested), "old")])}, {0: 5}, frozenset()))
    ledger.rows(_rows("old", 0))
    ledger.control(_named(request(control.CancelRequested), "old"), 7, 0)
    assert (ledger.forgotten, ledger.active) == (set(), {})
    ledger.control(_named(request(control.CancelRequested), "new"), 8, 0)
    assert ledger.forgotten == {"old"}


def test_rows_of_the_runs_that_ended_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEPT_ENDED", 2)
    ledger = Ledger()
    runs = ["a", "b", "c", "d"]
    for i, run_id in enumerate(runs):
        if run_id != "a":
            ledger.rows(_rows(run_id, 0))
        records = (claimed(), of_attempt(control.Started), of_attempt(control.Succeeded), of_attempt(control.Succeeded))
        for j, record in enumerate(records):
            ledger.control(_named(record, run_id), 4 * i + j, 0)
    assert ledger.forgotten == {"b"}, "nothing of a was there to be forgotten"
    assert [len(ledger.history(run_id).rows) for run_id in runs] == [0, 0, 1, 1]
