"""The accepted rows of a run (rule 10), and what a card shows of it."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, LogLine, Row, RowBatch
from kafka_jupyter.protocol.topics import DAY_MS
from kafka_jupyter.runs import view
from kafka_jupyter.runs.state import Placed, RunState, Start, State, apply, too_old_ms
from tests.support.records import RUN, claimed, expired, fold, of_attempt, request, submitted

STEPS = 3  # batches in an epoch
EPOCHS = 6


def _batch(n: int, rows: list[Row], nonce: str = "x") -> RowBatch:
    return RowBatch(RUN, n, "cpu-1", nonce, rows)


@st.composite
def trainings(draw: st.DrawFn) -> tuple[list[Start], list[RowBatch], int]:
    """Attempts, each from a point that an earlier one reached, with all the rows they wrote; and how many epochs are done at the end."""
    starts, batches = [], []
    reached = (0, 0)
    count = draw(st.integers(1, 4))
    for n in range(1, count + 1):
        resume = min(reached, (draw(st.integers(0, EPOCHS - 1)), draw(st.integers(0, STEPS - 1))))
        starts.append(Start(n, "cpu-1", "x", *resume))
        epoch, step = resume
        rows: list[Row] = []
        for _ in range(EPOCHS * STEPS if n == count else draw(st.integers(0, 12))):
            if epoch == EPOCHS:
                break
            step += 1
            rows.append(BatchProgress(len(rows), epoch, step, STEPS, {"loss": float(n)}))
            rows.append(LogLine(len(rows), epoch, step, f"attempt {n} at {epoch}.{step}"))
            if step == STEPS:
                rows.append(EpochEnded(len(rows), epoch, STEPS, {"loss": float(n)}))
                epoch, step = epoch + 1, 0
        reached = (epoch, step)
        while rows:
            size = draw(st.integers(1, 7))
            batches.append(_batch(n, rows[:size]))
            rows = rows[size:]
    return starts, batches, epoch


@settings(max_examples=150)
@given(trainings(), st.randoms(use_true_random=False), st.booleans())
def test_every_epoch_is_accepted_once_however_often_the_run_began_again(
    training: tuple[list[Start], list[RowBatch], int], chance: Any, shuffled: bool
) -> None:
    starts, batches, epochs = training
    log = view.RowLog()
    arriving = batches + chance.sample(batches, len(batches) // 2)
    if shuffled:
        chance.shuffle(arriving)
    for batch in arriving:
        log.add(batch)
    history = view.history(RunState(RUN, starts=tuple(starts)), log)
    assert [row.epoch for row in history.epochs] == list(range(epochs))
    assert history.metrics().get("loss", []) == [row.metrics["loss"] for row in history.epochs]
    lines = [(line.epoch, line.step) for line in history.lines]
    assert len(lines) == len(set(lines)) == epochs * STEPS, "each place was written by one attempt only"
    by = {row.place: n for n, row in history.rows if isinstance(row, LogLine)}
    assert all(n == max(start.n for start in starts if start.place < place) for place, n in by.items()), "the last one that came by"
    assert history.rows == tuple(sorted(history.rows, key=lambda pair: (pair[0], pair[1].seq)))


def _row(seq: int) -> Row:
    """The row that `seq` names: copies are equal."""
    place = {"epoch": seq // 3, "step": seq % 3}
    return (EpochEnded, BatchProgress, BatchProgress, LogLine)[seq % 4](seq, **place, **({"text": ""} if seq % 4 == 3 else {}))


ROWS = st.integers(-1, 16).map(_row)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(1, 2), st.sampled_from("xy"), st.lists(ROWS, max_size=6)), max_size=8))
def test_a_row_log_keeps_each_row_once_and_of_batch_progress_the_latest(batches: list[tuple[int, str, list[Row]]]) -> None:
    log = view.RowLog()
    given_back: dict[tuple[int, str], list[Row]] = {}
    seen: dict[tuple[int, str], dict[int, Row]] = {}
    for n, nonce, rows in batches:
        given_back.setdefault((n, nonce), []).extend(log.add(_batch(n, rows, nonce)))
        for row in rows:
            seen.setdefault((n, nonce), {}).setdefault(row.seq, row)
    for (n, nonce), known in seen.items():
        kept = log.of(Start(n, "cpu-1", nonce))
        seqs = [row.seq for row in kept]
        assert seqs == sorted(set(seqs))
        assert len(given_back[n, nonce]) == len({row.seq for row in given_back[n, nonce]}), "nobody is told of a row twice"
        assert all(row in given_back[n, nonce] for row in kept)
        lasting = {seq: row for seq, row in known.items() if not isinstance(row, BatchProgress)}
        assert {row.seq: row for row in kept if row.seq in lasting} == lasting
        progress = [seq for seq in known if seq not in lasting]
        assert [row.seq for row in kept if row.seq not in lasting] == ([max(progress)] if progress else [])


def test_rows_of_a_claim_that_lost_are_not_shown() -> None:
    log = view.RowLog()
    log.add(_batch(1, [EpochEnded(0, 0)], nonce="loser"))
    log.add(_batch(1, [EpochEnded(0, 0, metrics={"loss": 1.0})]))
    state = fold([claimed(), of_attempt(control.Started)])
    assert view.history(state, log).metrics() == {"loss": [1.0]}
    assert view.history(state, None).rows == ()


def test_an_attempt_that_never_started_shows_no_rows_and_replaces_none() -> None:
    log = view.RowLog()
    log.add(_batch(1, [EpochEnded(0, 0)]))
    log.add(_batch(2, [EpochEnded(0, 0)]))
    state = fold([claimed(), of_attempt(control.Started), of_attempt(control.Failed), claimed(2), of_attempt(control.Failed, 2)])
    assert [n for n, _ in view.history(state, log).rows] == [1]


def test_a_row_at_the_resume_point_belongs_to_the_earlier_attempt_and_one_behind_it_does_not() -> None:
    starts = [Start(2, "w", "x", 1, 2), Start(1, "w", "x")]
    rows = {1: [EpochEnded(0, 0), BatchProgress(1, 1, 2), BatchProgress(2, 1, 3), EpochEnded(3, 1)], 2: [EpochEnded(0, 1)]}
    assert [(n, row.seq) for n, row in view.accepted(starts, rows)] == [(1, 0), (1, 1), (2, 0)]


def test_running_numbers_are_shown_until_their_epoch_ends() -> None:
    going = (1, BatchProgress(1, 0, 2))
    assert view.History(()).progress is None
    assert view.History((going, (1, LogLine(2, 0, 2, "hello")))).progress == going[1]
    assert view.History((going, (1, EpochEnded(2, 0)))).progress is None
    assert view.History(((1, LogLine(0, 0, 0, "hello")),)).progress is None


def test_a_metric_that_some_epochs_lack_lists_what_is_there() -> None:
    rows = [EpochEnded(i, i, metrics={"loss": None} | ({"val_loss": float(i)} if i % 2 else {})) for i in range(4)]
    assert view.History(tuple((1, row) for row in rows)).metrics() == {"loss": [None] * 4, "val_loss": [1.0, 3.0]}


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("loss", (1.0, 2)),
        ("val_accuracy", (3.0, 1)),
        ("AUC", (3.0, 1)),
        ("mae", (1.0, 2)),
        ("accuracy_loss", (1.0, 2)),
        ("r2_score", (3.0, 1)),
    ],
)
def test_the_best_value_is_the_largest_of_what_grows_and_else_the_smallest_and_the_first_of_equals(
    name: str, best: tuple[float, int]
) -> None:
    assert view.best(name, [(1, 3.0), (2, 1.0), (3, None), (4, 1.0), (5, 3.0)]) == best
    assert view.best(name, [(1, None)]) is None


# --- the card


def _card(*records: control.Record) -> dict[str, Any]:
    card = view.card_state(fold(records))
    assert json.loads(json.dumps(card)) == card, "a page gets it as JSON"
    return card


def test_the_card_has_what_the_architecture_says() -> None:
    text = pathlib.Path(__file__).parents[2].joinpath("docs/architecture.md").read_text()
    example = re.search(r'```json\n(\{"v": 1, "run_id".*?)```', text, re.DOTALL)
    assert example is not None
    assert set(json.loads(example[1])) - set(_card(submitted())) == set()


def test_the_card_of_a_run_follows_it_from_submit_to_end() -> None:
    records: list[control.Record] = [submitted(name="digits", owner="ada", epochs=5, labels={"team": "a"})]
    card = _card(*records)
    assert (card["state"], card["worker"], card["attempt"], card["submitted_ms"]) == ("QUEUED", "", 0, 60_000)
    assert (card["name"], card["short"], card["labels"], card["epochs"]) == ("digits", "3f2a", {"team": "a"}, 5)
    records += [claimed(), of_attempt(control.Started, epoch=2, step=1, device="cpu", host="box")]
    card = _card(*records)
    assert (card["state"], card["worker"], card["host"], card["device"]) == ("RUNNING", "cpu-1", "box", "cpu")
    assert (card["starts"], card["heartbeat_ms"], card["started_ms"]) == ([{"n": 1, "epoch": 2, "step": 1}], 180_000, 180_000)
    card = _card(*records, of_attempt(control.Succeeded, epochs=5, metrics={"loss": 0.5}, stopped_early=True))
    assert (card["state"], card["terminal"], card["worker"], card["heartbeat_ms"]) == ("SUCCEEDED", True, "cpu-1", None)
    assert (card["epochs_done"], card["metrics"], card["stopped_early"], card["ended_ms"]) == (5, {"loss": 0.5}, True, 240_000)
    assert card["error"] is None


def test_the_card_of_a_run_without_its_submitted_goes_by_its_id() -> None:
    card = _card(claimed())
    assert (card["name"], card["owner"], card["submitted_ms"]) == (RUN, "", 60_000)


def test_the_card_lists_the_files_that_callbacks_wrote() -> None:
    file = control.OutputFile("best.keras", msgspec.convert({"kind": "text", "text": ""}, type=control.Part))
    assert _card(claimed(), of_attempt(control.Succeeded, files=[file]))["files"] == ["best.keras"]


def test_the_card_says_who_ended_a_run() -> None:
    assert _card(submitted(), request(control.CancelRequested, by="ada"))["ended_by"] == "ada"


CANCELS: dict[str, tuple[str, list[control.Record]]] = {
    "queued": ("none", [submitted(), request(control.CancelRequested)]),
    "the worker says so": ("gone", [claimed(), request(control.CancelRequested), of_attempt(control.Cancelled)]),
    "its lease ran out": ("cut off", [claimed(), request(control.CancelRequested), expired(0)]),
    "lost before": ("cut off", [claimed(), expired(0), request(control.CancelRequested)]),
    "stopped while lost": ("cut off", [claimed(), expired(0), request(control.StopRequested)]),
    "paused before": (
        "gone",
        [claimed(), request(control.PauseRequested), of_attempt(control.Released, reason="pause"), request(control.CancelRequested)],
    ),
    "failed before": ("gone", [claimed(), of_attempt(control.Failed), request(control.CancelRequested)]),
    "died when cancelled": ("gone", [claimed(), request(control.CancelRequested), of_attempt(control.Failed)]),
    "failed when cancelled": ("gone", [claimed(), request(control.CancelRequested), of_attempt(control.Failed, retryable=False)]),
}


@pytest.mark.parametrize("case", CANCELS)
def test_the_card_says_what_became_of_the_process_of_a_cancelled_run(case: str) -> None:
    process, records = CANCELS[case]
    card = _card(*records)
    assert (card["state"], card["process"]) == ("CANCELLED", process)
    assert _card(*records[:1])["process"] == ""


def test_the_card_says_where_a_run_can_go_on_what_was_applied_and_what_it_goes_on_for() -> None:
    applied = of_attempt(control.Applied, settings={"learning_rate": 0.5}, epoch=1, step=2)
    card = _card(submitted(retry_of="digits-0a1b"), claimed(), of_attempt(control.Checkpointed, epoch=3, step=1), applied)
    assert card["checkpoint"] == {"epoch": 3, "step": 1}
    assert card["applied"] == {"settings": {"learning_rate": 0.5}, "epoch": 1, "step": 2}
    assert card["retry_of"] == "digits-0a1b"
    strange = {"learning_rate": 10**400, "a": float("nan"), "b": True, "c": "x", "d": 3}
    assert view.numbers(strange) == {"d": 3.0}
    assert (_card(claimed())["checkpoint"], _card(claimed())["applied"]) == (None, None)


def _failed(n: int, **fields: Any) -> list[control.Record]:
    return [claimed(n), of_attempt(control.Failed, n, **fields)]


def test_the_card_shows_the_exception_of_a_failed_run() -> None:
    error = _card(*_failed(1, retryable=False, reason="exception", error="ValueError", message="no", traceback="tb"))["error"]
    assert (error["reason"], error["error"], error["message"], error["traceback"]) == ("exception", "ValueError", "no", "tb")
    assert (error["attempt"], error["worker"]) == (1, "cpu-1")


def test_the_card_shows_why_the_last_attempt_ended_while_the_run_waits_for_the_next() -> None:
    error = _card(*_failed(1), *_failed(2, reason="memory", memory=9))["error"]
    assert (error["reason"], error["error"], error["memory"], error["attempt"]) == ("memory", "memory", 9, 2)
    assert _card(*_failed(1), claimed(2))["error"] is None


def test_the_card_shows_why_a_run_is_dead() -> None:
    assert _card(*_failed(1), *_failed(2), *_failed(3, signal=11))["error"]["signal"] == 11
    silent = [record for n in range(2, 8) for record in (claimed(n), expired(after=2 * n - 2, n=n))]
    assert _card(*_failed(1), *silent)["error"]["message"] == "7 attempts ended without progress: its workers went silent"
    unfit = [r for n in range(1, 21) for r in (claimed(n), of_attempt(control.Released, n, reason="unfit", detail="no keras"))]
    assert _card(*unfit)["error"]["message"].endswith(": no keras")
    unfit = [r for n in range(1, 21) for r in (claimed(n), of_attempt(control.Released, n, reason="unfit"))]
    assert _card(*unfit)["error"]["message"].endswith(": no worker could run it")


def test_the_card_of_a_run_that_got_too_old_says_so_whatever_failed_before() -> None:
    state = fold([submitted(keep_days=2.0), *_failed(1), control.TooOld(run_id=RUN)])
    failure = view.failure_of(state)
    assert failure is not None
    assert (state.state, failure["error"], failure["message"]) == (State.FAILED, "TooOld", "the run got older than the log is kept")


@pytest.mark.parametrize(
    ("days", "warned"),
    [(24.9, ""), (25.5, "in 2 d 12 h"), (27.2, "in 19 h"), (27.99, "within the hour"), (29.0, "within the hour")],
)
def test_the_card_of_a_run_warns_three_days_before_it_gets_too_old(days: float, warned: str) -> None:
    running = fold([submitted(keep_days=30.0), claimed(), of_attempt(control.Started)])
    warning = view.card_state(running, now_ms=60_000 + int(days * DAY_MS))["warning"]
    assert warning == (
        warned and f"It will be ended {warned}, because it gets older than the log is kept. Stop it in time to keep its weights."
    )


def test_a_warning_needs_a_run_that_goes_on_and_a_clock() -> None:
    late = 60_000 + int(26 * DAY_MS)
    ended = fold([submitted(), claimed(), of_attempt(control.Succeeded)])
    assert view.card_state(ended, now_ms=late)["warning"] == ""
    assert view.card_state(fold([submitted()]))["warning"] == ""
    assert view.card_state(fold([submitted()]), now_ms=late)["warning"].endswith("A run must end before its log does.")


def test_the_warning_counts_down_to_the_very_time_at_which_the_fold_ends_the_run() -> None:
    running = fold([submitted(keep_days=10.0)])
    limit = int(too_old_ms(running))
    for time_ms, state in ((limit - 1, State.QUEUED), (limit, State.FAILED)):
        assert apply(running, Placed(control.TooOld(run_id=RUN), 9, time_ms)).state is state


def test_a_cancelled_run_shows_no_error() -> None:
    records = [claimed(), request(control.CancelRequested), of_attempt(control.Failed, retryable=False)]
    assert _card(*records)["state"] == "CANCELLED"
    assert _card(*records)["error"] is None


def test_a_row_of_a_page_names_its_attempt() -> None:
    row = view.row_json(2, LogLine(7, 0, 3, "hello"))
    assert row == {"attempt": 2, "type": "line", "seq": 7, "epoch": 0, "step": 3, "text": "hello"}


def test_what_somebody_wrote_at_length_is_cut_for_pages() -> None:
    long = "x" * 1_000_000
    first = control.Submitted(
        run_id=RUN, task=control.TaskPlace("task", 0, 0), name=long, owner=long, model_name=long, notebook=long, cell=long,
        labels={long: long, **{str(i): "y" for i in range(5000)}},
    )  # fmt: skip
    failure = of_attempt(control.Failed, 1, retryable=False, reason="exception", error=long, message=long, traceback=long)
    card = _card(first, claimed(1), of_attempt(control.Started, 1, host=long, device=long), failure)
    assert len(json.dumps(card)) < 200_000
    assert card["error"]["traceback"] == "x" * view.TRACEBACK_LIMIT


def test_rows_of_anybody_are_kept_within_bounds() -> None:
    log = view.RowLog()
    metrics: dict[str, float | None] = {"m" * 10_000: 1.0, **{str(i): 0.0 for i in range(5000)}}
    kept = log.add(_batch(1, [LogLine(1, 0, 0, "x" * 10_000_000), LogLine(2, 0, 0, "short"), EpochEnded(3, 0, 3, metrics)]))
    assert isinstance(kept[0], LogLine)
    assert kept[0].text == "x" * 4096 + " … (9995904 more characters)"
    assert kept[1] == LogLine(2, 0, 0, "short")
    assert isinstance(kept[2], EpochEnded)
    assert len(kept[2].metrics) == 1000
    assert next(iter(kept[2].metrics)) == "m" * 200
