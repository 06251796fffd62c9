"""The checker can fail: hand-made logs that violate each invariant are found, and one that violates none is not."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.faults import acceptance, checker
from tests.faults.acceptance import Entry, Run, Span
from tests.faults.rawlog import Raw, RunLog, Topics, _take_control, is_whole

RUN = "digits-3f2a9c01b7d4"
A = {"run_id": RUN, "n": 1, "worker": "a-1", "nonce": "x"}
B = {"run_id": RUN, "n": 2, "worker": "b-2", "nonce": "y"}
TASK = {"task": {"topic": "task", "partition": 0, "offset": 0}}
DATA = b"weights"
PART = {"kind": "kafka", "upload": "u", "chunks": 1, "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}


def record(kind: str, who: dict[str, Any] = A, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "run_id": RUN} | who | fields


def epochs(who: dict[str, Any], *numbers: int, first_seq: int = 0) -> dict[str, Any]:
    rows = [{"type": "epoch", "seq": first_seq + i, "epoch": epoch, "metrics": {"loss": 0.5}} for i, epoch in enumerate(numbers)]
    return who | {"type": "rows", "rows": rows}


def succeeded(who: dict[str, Any] = A, done: int = 2, **fields: Any) -> dict[str, Any]:
    return record("succeeded", who, epochs=done, parts={"state": PART}, **fields)


def topics(*records: dict[str, Any], rows: tuple[dict[str, Any], ...] = (epochs(A, 0, 1),), **more: Any) -> Topics:
    log = RunLog(
        RUN,
        [Entry(offset, 1000 * offset, each) for offset, each in enumerate(records)],
        list(enumerate(rows)),
        tasks=[{"type": "task"}],
        **more,
    )
    return Topics({RUN: log}, {"u/0": DATA})


def wrong(found: Topics, judging: Any = acceptance.judge) -> list[str]:
    return [what.removeprefix(f"{RUN}: ")[:2] for what in checker.check(found, judging).wrong]


GOOD = (
    {"type": "submitted", "run_id": RUN} | TASK,
    record("claimed", **TASK),
    record("claimed", A | {"worker": "late-3", "nonce": "z"}, **TASK),
    record("started"),
    record("heartbeat"),
    succeeded(),
    succeeded(),
    record("heartbeat"),
)
TAKEN_OVER = (
    record("claimed", **TASK),
    record("started"),
    {"type": "expired", "run_id": RUN, "n": 1, "after": 1},
    record("claimed", B, **TASK),
    record("heartbeat"),  # the zombie
    record("started", B, epoch=1),
    succeeded(),  # the zombie
    succeeded(B),
)


def test_a_log_in_which_all_is_well_has_no_violation() -> None:
    verdict = checker.check(topics(*GOOD, ends=[{"state": "SUCCEEDED", "end_offset": 5}]))
    assert verdict.wrong == []
    assert verdict.states() == {"SUCCEEDED": 1}
    assert verdict.rejected == 3  # a claim that came late, a duplicate, a heartbeat after the end


def test_a_run_that_was_taken_over_goes_on_where_the_new_attempt_began_and_its_zombie_means_nothing() -> None:
    verdict = checker.check(topics(*TAKEN_OVER, rows=(epochs(A, 0, 1, 2), epochs(B, 1))))
    assert verdict.wrong == []
    assert [span.closed_by for span in verdict.runs[RUN].spans] == ["expired", "succeeded"]


def test_i1_a_run_without_an_end_is_lost() -> None:
    assert wrong(topics(*GOOD[:5])) == ["I1"]
    assert checker.check(topics(*GOOD[:5]), unfinished=frozenset({RUN})).wrong == []


def test_i1_a_task_that_nobody_ever_claimed_is_lost() -> None:
    assert wrong(topics(rows=())) == ["I1"]


def test_i1_two_ends_are_too_many() -> None:
    """By a fold that goes on after an end."""

    def forgetful(run_id: str, entries: list[Entry]) -> Run:
        run = Run(run_id)
        for entry in entries:
            run.take(entry)
            run.end, run.open = None, run.spans[-1] if run.spans else None
        run.end = entries[-1]
        return run

    found = topics(*GOOD[:6], record("failed", retryable=False, reason="exception"))
    assert wrong(found, forgetful).count("I1") == 2  # two ends, and an attempt with two last words


def test_i1_an_attempt_that_says_two_different_last_words_is_found() -> None:
    assert wrong(topics(*GOOD[:6], record("cancelled"))) == ["I1"]


def test_i1_a_snapshot_that_shows_another_end_than_the_log_is_found() -> None:
    assert wrong(topics(*GOOD, ends=[{"state": "FAILED", "end_offset": 5}])) == ["I1"]
    assert wrong(topics(*GOOD[:5], ends=[{"state": "SUCCEEDED", "end_offset": 5}])) == ["I1", "I1"]


def test_i2_a_worker_that_trains_without_having_won_is_found() -> None:
    assert wrong(topics(*GOOD[:5], record("started", A | {"worker": "late-3", "nonce": "z"}), *GOOD[5:])) == ["I2"]


def test_i2_two_attempts_at_a_time_are_found() -> None:
    """By a fold that lets everybody win."""

    def generous(run_id: str, entries: list[Entry]) -> Run:
        run = acceptance.judge(run_id, entries)
        claims = [entry for entry in entries if entry.type == "claimed"]
        run.spans = [Span(1, e.record["worker"], e.record["nonce"], e.offset, 5, 5, "succeeded", run.spans[0].started) for e in claims]
        return run

    assert "I2" in wrong(topics(*GOOD), generous)


def test_i3_a_gap_in_the_accepted_history_is_found() -> None:
    assert set(wrong(topics(*GOOD, rows=(epochs(A, 0, 2),)))) == {"I3"}


def test_i3_a_double_in_the_accepted_history_is_found() -> None:
    assert set(wrong(topics(*GOOD, rows=(epochs(A, 0, 1), epochs(A, 1, first_seq=2))))) == {"I3"}


def test_i3_a_result_with_more_epochs_than_the_history_is_found() -> None:
    assert wrong(topics(*GOOD, rows=(epochs(A, 0),))) == ["I3"]


def test_i3_two_rows_with_one_number_are_found_and_a_row_sent_twice_is_none() -> None:
    assert wrong(topics(*GOOD, rows=(epochs(A, 0, 1), epochs(A, 0, 1)))) == []
    assert wrong(topics(*GOOD, rows=(epochs(A, 0, 1), epochs(A, 7, first_seq=1)))) == ["I3"]


def test_i3_rows_that_never_came_though_the_end_says_where_they_are_are_found() -> None:
    assert wrong(topics(*GOOD[:5], succeeded(log_end=3))) == ["I3"]


@pytest.mark.parametrize("chunks", [{}, {"u/0": b"w3ights"}, {"u/0": DATA[:-1]}], ids=["missing", "altered", "truncated"])
def test_i4_an_artifact_that_is_not_what_its_record_says_is_found(chunks: dict[str, bytes]) -> None:
    found = topics(*GOOD)
    found.chunks = chunks
    assert wrong(found) == ["I4"]


def checkpoint(epoch: int, upload: str = "u", value: float | None = None, **fields: Any) -> dict[str, Any]:
    score = {} if value is None else {"metric": "loss", "value": value}
    return record("checkpointed", epoch=epoch, step=0, parts={"state": PART | {"upload": upload}}, **score, **fields)


FAILED = record("failed", retryable=False, reason="exception")


def test_i4_the_last_two_checkpoints_must_be_there_whatever_the_end() -> None:
    assert wrong(topics(*GOOD[:4], checkpoint(1), checkpoint(2, "gone"), FAILED)) == ["I4"]
    assert wrong(topics(*GOOD[:4], checkpoint(1, "gone"), checkpoint(2), FAILED)) == ["I4"]
    assert wrong(topics(*GOOD[:4], checkpoint(1, "gone"), checkpoint(2), *GOOD[4:])) == ["I4"]
    assert wrong(topics(*GOOD[:4], checkpoint(1, "gone"), checkpoint(2), checkpoint(3), FAILED)) == []  # what is superseded may be deleted


def test_i4_a_copy_of_a_superseded_checkpoint_takes_the_place_of_no_other() -> None:
    copied = [checkpoint(1, "gone"), checkpoint(2), checkpoint(3), checkpoint(1, "gone")]
    assert wrong(topics(*GOOD[:4], *copied, FAILED)) == []
    assert wrong(topics(*GOOD[:4], *copied[:2], checkpoint(3, "gone"), copied[3], FAILED)) == ["I4"]


def test_i4_the_best_checkpoint_must_be_there_too() -> None:
    later = (checkpoint(2, value=0.4), checkpoint(3), checkpoint(4, value=0.2), FAILED)
    assert wrong(topics(*GOOD[:4], checkpoint(1, "gone", 0.1), *later)) == ["I4"]
    assert wrong(topics(*GOOD[:4], checkpoint(1, "gone", 0.5), *later)) == []
    assert wrong(topics(*GOOD[:4], checkpoint(1, "gone", 0.5, mode="max"), *later)) == []  # how it is compared says the later one
    upwards = [checkpoint(epoch, upload, value, mode="max") for epoch, upload, value in ((1, "gone", 0.5), (2, "u", 0.4), (3, "u", 0.2))]
    assert wrong(topics(*GOOD[:4], *upwards, checkpoint(4), FAILED)) == ["I4"]


def test_i4_the_files_of_a_checkpoint_must_be_there() -> None:
    assert wrong(topics(*GOOD[:4], checkpoint(1, files={"callback-0/log.csv": PART | {"upload": "gone"}}), FAILED)) == ["I4"]
    assert wrong(topics(*GOOD[:4], checkpoint(1, files={"callback-0/log.csv": PART}), FAILED)) == []


def test_i5_a_record_that_counts_after_its_expired_is_found() -> None:
    """By a fold that does not fence."""

    def fenceless(run_id: str, entries: list[Entry]) -> Run:
        run = acceptance.judge(run_id, entries)
        run.accepted = list(entries)
        return run

    assert {"I2", "I5"} <= set(wrong(topics(*TAKEN_OVER, rows=(epochs(A, 0, 1, 2), epochs(B, 1))), fenceless))


def test_three_failures_or_six_expiries_without_progress_are_the_end_and_a_checkpoint_starts_the_count_anew() -> None:
    failed = [r for n in (1, 2, 3) for r in (record("claimed", A | {"n": n}), record("failed", A | {"n": n}, retryable=True, reason="x"))]
    assert _state(failed) == "DEAD"
    checkpoint = record("checkpointed", A | {"n": 3}, epoch=1, step=0)
    assert _state([*failed[:5], checkpoint, failed[5]]) == "RETRYING"
    expired = [
        r for n in range(1, 7) for r in (record("claimed", A | {"n": n}), {"type": "expired", "run_id": RUN, "n": n, "after": 2 * (n - 1)})
    ]
    assert _state(expired[:-1]) == "CLAIMED"
    assert _state(expired) == "DEAD"


def test_requests_act_as_the_table_says() -> None:
    def ask(kind: str, number: int = 0) -> dict[str, Any]:
        return {"type": kind, "run_id": RUN, "request_id": f"{kind}{number}"}

    released = record("released", reason="pause")
    assert _state([ask("cancel")]) == "CANCELLED"
    assert _state([ask("stop")]) == "CANCELLED"
    assert _state([ask("pause"), record("claimed")]) == "PAUSED"
    assert _state([ask("pause"), ask("resume"), record("claimed")]) == "CLAIMED"
    assert _state([record("claimed"), ask("pause"), released]) == "PAUSED"
    assert _state([record("claimed"), ask("cancel"), released]) == "CANCELLED"
    assert _state([record("claimed"), ask("cancel"), succeeded()]) == "SUCCEEDED"
    assert _state([ask("pause", 1), ask("resume"), ask("pause", 1)]) == "QUEUED"  # a request that comes twice


def _state(records: list[dict[str, Any]]) -> str:
    return acceptance.judge(RUN, [Entry(offset, 0, each) for offset, each in enumerate(records)]).state


def test_what_is_no_record_of_ours_is_junk_and_a_newer_one_leaves_its_run_unjudged() -> None:
    found, places = topics(*GOOD), 3
    partition = next(p for p in range(places) if _take_control(topics(), _raw(p, record("heartbeat")), places))
    assert not _take_control(found, _raw((partition + 1) % places, record("heartbeat")), places)
    for bad in (record("heartbeat", n="1"), record("expired", {}, n=1), {"type": 7, "run_id": RUN}, {"run_id": RUN}):
        assert not _take_control(found, _raw(partition, bad), places)
    for value in (b"", b"\xff\xfe", b"[" * 5000, b"7"):
        assert not _take_control(found, Raw(partition, 9, 0, RUN.encode(), value), places)
    assert checker.check(found).wrong == []
    assert not _take_control(found, _raw(partition, record("heartbeat", v=99)), places)
    assert checker.check(found).runs == {}


def _raw(partition: int, value: dict[str, Any]) -> Raw:
    return Raw(partition, 9, 0, RUN.encode(), json.dumps(value).encode())


def test_what_stands_in_the_record_itself_is_always_whole() -> None:
    part = {"kind": "bytes", "data": base64.b64encode(DATA).decode()}
    assert Topics().bytes_of(part) == DATA
    assert is_whole(part, DATA)
