"""The ledger knows many runs, and tells who changed."""

from __future__ import annotations

import msgspec
import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from kafka_jupyter.runs import ledger as room
from kafka_jupyter.runs.ledger import Ledger
from kafka_jupyter.runs.snapshots import Beginning
from kafka_jupyter.runs.state import State
from tests.support.records import RUN, claimed, fold, of_attempt, submitted


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


def test_rows_may_come_before_the_records_of_their_run() -> None:
    ledger = Ledger()
    assert [row.seq for row in ledger.rows(_rows(RUN, 0, 1))] == [0, 1]
    assert ledger.rows(_rows(RUN, 0, 1)) == []
    ledger.control(claimed(), 0, 0)
    assert ledger.history(RUN).rows == ()
    ledger.control(of_attempt(control.Started), 1, 0)
    assert [row.epoch for row in ledger.history(RUN).epochs] == [0, 1]


def test_what_waits_is_claimable_and_in_the_log() -> None:
    ledger = Ledger()
    ledger.begin(
        Beginning({"old": fold([_named(submitted(), "old")]), "kept": fold([_named(submitted(), "kept")])}, {0: 9}, frozenset({"old"}))
    )
    ledger.control(_named(submitted(), "new"), 9, 99_000)
    ledger.control(_named(claimed(), "taken"), 10, 0)
    assert [state.run_id for state in ledger.waiting()] == ["kept", "new"]
    assert set(ledger.states) == {"old", "kept", "new", "taken"}


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
