"""What workers write into run_state, by the eyes of the readers that start from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.brokers.run_state import read_snapshots
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs import choose, snapshots
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.settings import Settings
from kafka_jupyter.worker import snapshotter
from kafka_jupyter.worker.snapshotter import AFTER_RECORDS
from tests.support.limits import take_at_most
from tests.support.playing import Player
from tests.support.scribe import scribe
from tests.support.waiting import wait_until


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings.replace(partitions=1)), create=True)) as log:
        yield log


def chatter(run: Player, count: int = AFTER_RECORDS) -> None:
    """Heartbeats of its open attempt."""
    for step in range(count):
        run.log.send_control(control.Heartbeat(**run.own(), step=step))
    assert run.log.producer.flush(30) == 0


def running(log: Log) -> Player:
    run = Player.new(log)
    run.submit()
    run.claim()
    run.start()
    return run


def mark(log: Log) -> int | None:
    """The newest mark that stands in the log."""
    with contextlib.closing(Reader(log.cluster)) as reader:
        marks = [record.upto for record in read_snapshots(log, reader, log.gate.distrust) if isinstance(record, snapshots.Mark)]
    return marks[0] if marks else None


def known_to_a_new_reader(log: Log, first: int) -> dict[str, RunState]:
    """What a follower knows that starts now, which must begin to read at this offset."""
    with contextlib.closing(Follower(log, rows=False)) as fresh:
        fresh.start()
        assert fresh.beginning.offsets == {0: first}
        return {state.run_id: state for state in fresh.states()}


def test_a_reader_that_starts_from_them_knows_what_one_knows_that_has_read_everything(log: Log) -> None:
    with scribe(log) as writer:
        Player.new(log).whole()
        Player.new(log).submit()
        run = running(log)
        chatter(run)
        writer.round()
        upto = mark(log)
        assert upto is not None
        ended, waiting, moving = writer.follower.states()
        assert known_to_a_new_reader(log, upto + 1) == {state.run_id: state for state in (ended, waiting, moving)}
        run.succeed()
        Player.new(log).whole()
        everything = wait_until(
            lambda: len(found := writer.follower.states()) == 4 and found[3].terminal and {state.run_id: state for state in found},
            "the follower stands still",
        )
        assert known_to_a_new_reader(log, upto + 1) == everything


def test_nothing_is_written_for_a_handful_of_records(log: Log) -> None:
    with scribe(log) as writer:
        chatter(running(log), AFTER_RECORDS // 2)
        writer.round()
        assert mark(log) is None


def test_there_is_no_mark_while_a_snapshot_is_missing_and_a_later_round_makes_up_for_it(log: Log) -> None:
    take_at_most(log, topics.RUN_STATE, 4000)
    with scribe(log) as writer:
        large = Player.new(log)
        place = large.submit(submitted=False)
        large.say(control.Submitted(run_id=large.run_id, task=place, notebook="n" * 8000))
        run = running(log)
        chatter(run)
        writer.round()
        assert mark(log) is None
        chatter(run)  # the large run itself has nothing new
        writer.round()
        assert mark(log) is None
        take_at_most(log, topics.RUN_STATE)
        writer.round()
        assert mark(log) is None, "what was too large twice is sent again no later than before"
        writer.round()
        upto = mark(log)
        assert upto is not None
        first, second = writer.follower.states()
        assert known_to_a_new_reader(log, upto + 1) == {first.run_id: first, second.run_id: second}


def test_a_run_that_waits_for_long_is_written_again_and_holds_no_new_reader_back(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotter, "STALE_RECORDS", 3 * AFTER_RECORDS)
    waiting = Player.new(log)
    waiting.submit()
    with scribe(log) as writer:
        run, marks = running(log), []
        for _ in range(6):
            chatter(run)
            writer.round()
            marks.append(mark(log))
        assert None not in marks
        first, moving = writer.follower.states()
        assert known_to_a_new_reader(log, marks[4] + 1) == {first.run_id: first, moving.run_id: moving}  # type: ignore[operator]
    with scribe(log, "box-2") as other:  # knows how old the snapshot is, from those it began with
        chatter(run)
        other.round()
        assert known_to_a_new_reader(log, marks[4] + 1)  # type: ignore[operator]
        chatter(run, 2 * AFTER_RECORDS)
        other.round()
        assert known_to_a_new_reader(log, mark(log) + 1)  # type: ignore[operator]


def test_one_of_the_live_workers_writes_and_the_next_one_when_it_is_gone(log: Log) -> None:
    names = ["box-1", "box-2"]
    chosen, other = sorted(names, key=lambda name: choose.rank("mark/0", name, names))
    with scribe(log, chosen) as first, scribe(log, other) as second:
        for name in names:
            log.send_worker(WorkerInfo(name, name, period_s=60))
        for writer in (first, second):
            wait_until(lambda writer=writer: len(writer.follower.workers()) == 2, "the workers never showed up")
        run = running(log)
        chatter(run)
        second.round()
        assert mark(log) is None
        first.round()
        before = mark(log)
        assert before is not None
        log.bury(topics.WORKER_STATE, chosen, "worker")
        wait_until(lambda: len(second.follower.workers()) == 1, "a buried worker stays alive")
        chatter(run)
        second.round()
        after = mark(log)
        assert after is not None
        assert after > before
