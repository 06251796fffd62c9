"""What an attempt says is larger than Kafka takes: rows are cut, results go to the store, and nothing is tried for ever."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator

import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids, topics
from kafka_jupyter.protocol.parts import InlineBytes
from kafka_jupyter.protocol.rows import LINE_LIMIT, EpochEnded, LogLine, Row, RowBatch
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from kafka_jupyter.worker.reporter import WORKER_LIMIT, Reporter
from kafka_jupyter.worker.transfer import RESULTS_INLINE
from tests.support.limits import take_at_most
from tests.support.scene import Scene
from tests.support.training import submit
from tests.support.waiting import wait_until

LIMIT = 2000  # bytes that the broker takes


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        take_at_most(log, topics.TRAINING_LOG, LIMIT)
        yield log


@pytest.fixture
def loop() -> queue.SimpleQueue[Callable[[], None]]:
    """As the supervisor's: what others hand over."""
    return queue.SimpleQueue()


@pytest.fixture
def reporter(log: Log, loop: queue.SimpleQueue[Callable[[], None]]) -> Reporter:
    return Reporter(log, ids.new_run_id("large"), 1, "box-1", "nonce", loop.put)


def written(log: Log, reporter: Reporter, loop: queue.SimpleQueue[Callable[[], None]]) -> list[Row]:
    """The rows in the log once the reporter has got rid of all of them."""

    def turn() -> bool:
        while not loop.empty():
            loop.get()()
        reporter.flush(time.monotonic())
        return reporter.empty

    wait_until(turn, "rows do not get into the log", within=60)
    read = [log.decode(m) for place in log.topics.all_places(topics.TRAINING_LOG) for m in log.read_range(place, 0, None)]
    rows = [row for batch in read if isinstance(batch, RowBatch) for row in batch.rows]
    seqs = [row.seq for row in rows]
    assert seqs == sorted(set(seqs))
    assert reporter.thinned or seqs == list(range(1, len(rows) + 1))
    return rows


def test_a_batch_is_split_and_its_rows_are_whole(log: Log, reporter: Reporter, loop: queue.SimpleQueue[Callable[[], None]]) -> None:
    texts = [f"{number:03} " + "ab" * 100 for number in range(60)]
    for text in texts:
        reporter.line(text, "stdout")
    assert [row.text for row in written(log, reporter, loop) if isinstance(row, LogLine)] == texts


def test_one_line_is_cut_and_says_so(log: Log, reporter: Reporter, loop: queue.SimpleQueue[Callable[[], None]]) -> None:
    reporter.line("before", "stdout")
    reporter.line("😀" * LINE_LIMIT, "stdout")
    reporter.line("after", "stdout")
    first, large, last = (row for row in written(log, reporter, loop) if isinstance(row, LogLine))
    assert (first.text, last.text) == ("before", "after")
    assert large.text.startswith("😀" * 50)
    assert large.text.endswith(" … (cut: Kafka takes smaller records)")


def test_an_epoch_is_never_lost_and_a_line_says_that_metrics_are_missing(
    log: Log, reporter: Reporter, loop: queue.SimpleQueue[Callable[[], None]]
) -> None:
    reporter.epoch(0, 10, {f"metric_{number}": 1.0 for number in range(500)}, 0.1, 0)
    reporter.epoch(1, 10, {"loss": 0.5}, 0.1, 0)
    rows = written(log, reporter, loop)
    first, second = (row for row in rows if isinstance(row, EpochEnded))
    assert 10 < len(first.metrics) < 500
    assert second.metrics == {"loss": 0.5}
    (note,) = (row.text for row in rows if isinstance(row, LogLine))
    assert note == "Metrics of epoch 0 are missing here: the record was larger than Kafka takes."


def test_while_nothing_gets_through_running_numbers_and_lines_are_thinned_and_epochs_never(
    log: Log, loop: queue.SimpleQueue[Callable[[], None]]
) -> None:
    slots = 200
    reporter = Reporter(log, ids.new_run_id("large"), 1, "box-1", "nonce", loop.put, slots)
    for epoch in range(300):
        for step in range(20):
            reporter.batch(epoch, step + 1, 20, {"loss": 0.5})
            reporter.line("x" * 100, "stdout")
            assert reporter.waiting_bytes <= WORKER_LIMIT // slots
        reporter.epoch(epoch, 20, {"loss": 0.5}, 0.1, 0)
    assert reporter.thinned > 1000
    rows = written(log, reporter, loop)
    assert [row.epoch for row in rows if isinstance(row, EpochEnded)] == list(range(300))
    *lines, note = (row for row in rows if isinstance(row, LogLine))
    assert note.seq == 300 * 41 + 1
    assert note.text == f"{6000 - len(lines)} lines are missing before this one: Kafka did not take them in time."


def test_rows_that_may_not_be_dropped_cost_no_more_the_more_of_them_wait(log: Log, loop: queue.SimpleQueue[Callable[[], None]]) -> None:
    reporter = Reporter(log, ids.new_run_id("large"), 1, "box-1", "nonce", loop.put, slots=48)

    def seconds(rows: int) -> float:
        """Of the processor, for so many rows."""
        begun = time.process_time()
        for epoch in range(rows):
            reporter.line("beside it", "stdout")
            reporter.epoch(epoch, 10, {"loss": 0.5}, 0.1, 0)
        return time.process_time() - begun

    while reporter.waiting_bytes <= WORKER_LIMIT // 48:
        seconds(1000)
    assert seconds(2000) < 0.5  # a look at all that wait takes 2 ms


def test_a_run_whose_end_is_too_large_a_record_fails_and_says_why(own: Scene) -> None:
    own.workers.start()
    own.workers_there(1)
    take_at_most(own.log, topics.RUN_CONTROL, LIMIT)
    state = own.ended(submit(own.log, epochs=100, rows=64))  # its history alone is larger
    assert (state.state, state.last_n) == (State.FAILED, 1)
    assert isinstance(state.end, control.Failed)
    assert state.end.error == "RecordTooLarge"
    assert "larger than the broker takes" in state.end.message
    assert own.ended(submit(own.log, epochs=1, rows=64)).state is State.SUCCEEDED


def test_many_small_files_do_not_all_stand_in_the_record_that_ends_the_run(own: Scene) -> None:
    import keras

    own.workers.start()
    loggers = [keras.callbacks.CSVLogger(f"log-{number}.csv") for number in range(24)]
    state = own.ended(submit(own.log, epochs=100, rows=64, callbacks=loggers))
    assert isinstance(state.end, control.Succeeded)
    assert len(state.end.files) == len(loggers)
    inline = [file.part.size for file in state.end.files if isinstance(file.part, InlineBytes)]
    assert 0 < len(inline) < len(loggers)
    assert sum(inline) <= RESULTS_INLINE
