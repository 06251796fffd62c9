"""Following the real log: catching up, rows of old runs, junk, snapshots, outages that are named."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

import msgspec
import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers import follow
from kafka_jupyter.brokers import topics as broker_topics
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster, Message, Partition
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.control import CancelRequested
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs import snapshots
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from tests.support import clumsy, raw
from tests.support.playing import Player
from tests.support.waiting import wait_until


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        yield log


@contextlib.contextmanager
def following(log: Log, rows: bool = True) -> Iterator[Follower]:
    follower = Follower(log, rows)
    follower.start()
    with contextlib.closing(follower):
        yield follower


def test_a_follower_sees_a_run_that_ended_before_it_came_with_all_its_rows(log: Log) -> None:
    run = Player.new(log).whole()
    with following(log) as follower:
        state = follower.state(run.run_id)
        assert state is not None
        assert state.state is State.SUCCEEDED
        assert [row.epoch for row in follower.history(run.run_id).epochs] == [0, 1, 2]
        assert follower.history(run.run_id).metrics() == {"loss": [1.0, 1 / 2, 1 / 3]}


def test_a_follower_that_comes_in_the_middle_of_a_run_sees_every_epoch_from_the_first(log: Log) -> None:
    run = Player.new(log, epochs=4)
    run.submit()
    run.claim()
    run.start()
    run.epoch(0)
    run.epoch(1)
    with following(log) as follower:
        run.epoch(2)
        run.epoch(3)
        run.succeed()
        assert follower.wait(lambda: follower.has_all_rows(run.run_id) and follower.state(run.run_id).terminal, 10)  # type: ignore[union-attr]
        assert [row.epoch for row in follower.history(run.run_id).epochs] == [0, 1, 2, 3]


def test_listeners_are_told_of_states_and_rows_once_each(log: Log) -> None:
    changes: list[Change] = []
    with following(log) as follower:
        leave = follower.subscribe(changes.append)
        run = Player.new(log).whole()
        wait_until(lambda: sum(len(change.rows) for change in changes) == 3 and changes[-1].topic, "the rows never came")
        wait_until(lambda: any(c.state and c.state.terminal for c in changes), "the end never came")
        leave()
        Player.new(log).submit()
        assert {change.run_id for change in changes} == {run.run_id}
        assert [str(c.state.state) for c in changes if c.state] == ["QUEUED", "CLAIMED", "RUNNING", "SUCCEEDED"]


def test_the_second_attempts_rows_replace_those_of_the_first(log: Log) -> None:
    run = Player.new(log)
    run.submit()
    first = run.claim("box-1")
    first = run.start()
    run.epoch(0, loss=9.0)
    run.epoch(1, loss=9.0)
    from kafka_jupyter.protocol.control import Expired

    run.say(Expired(run_id=run.run_id, n=1, after=first))
    run.claim("box-2")
    run.start()
    for epoch in range(3):
        run.epoch(epoch, loss=float(epoch))
    run.succeed()
    with following(log) as follower:
        assert follower.history(run.run_id).metrics() == {"loss": [0.0, 1.0, 2.0]}


def test_junk_in_every_topic_is_counted_and_passed_over(log: Log) -> None:
    for base in (topics.RUN_CONTROL, topics.TRAINING_LOG, topics.WORKER_STATE, topics.RUN_STATE):
        for value in (b"\x00\xff", b'{"hello": "world"}', b"[1,2", b""):
            log.send(base, "digits-0", value, raw.TYPES[base])
    log.producer.flush(10)
    run = Player.new(log).whole()
    with following(log) as follower:
        assert follower.state(run.run_id).state is State.SUCCEEDED  # type: ignore[union-attr]
        wait_until(lambda: log.junk[topics.RUN_CONTROL] == 4, f"junk was not counted: {log.junk}")
        assert log.junk[topics.RUN_STATE] == 4


def test_a_record_of_a_newer_version_makes_only_its_run_read_only(log: Log) -> None:
    run, other = Player.new(log), Player.new(log)
    run.submit()
    other.submit()
    log.send(topics.RUN_CONTROL, run.run_id, msgspec.json.encode({"type": "claimed", "v": 99, "run_id": run.run_id}), "claimed")
    log.producer.flush(10)
    with following(log) as follower:
        assert [state.run_id for state in follower.waiting()] == [other.run_id]
        assert follower.state(run.run_id).newer  # type: ignore[union-attr]


def test_a_run_under_another_runs_key_is_junk(log: Log) -> None:
    run = Player.new(log)
    run.submit()
    log.send(
        topics.RUN_CONTROL, "foreign-1", msgspec.json.encode({"type": "cancel", "v": 1, "run_id": run.run_id, "request_id": "x"}), "cancel"
    )
    log.producer.flush(10)
    with following(log) as follower:
        assert follower.state(run.run_id).state is State.QUEUED  # type: ignore[union-attr]


def test_a_reader_that_starts_from_snapshots_knows_the_same_as_one_that_reads_all(log: Log) -> None:
    runs = [Player.new(log).whole() for _ in range(3)]
    waiting = Player.new(log)
    waiting.submit()
    with following(log) as slow:
        states = {state.run_id: state for state in slow.states()}
        for partition in range(3):
            mine = [s for s in states.values() if log.topics.place(topics.RUN_CONTROL, s.run_id)[1] == partition]
            for state in mine:
                snapshot = snapshots.Snapshot(partition, state, distrust=log.gate.distrust)
                log.send(topics.RUN_STATE, snapshots.key_of(snapshot), msgspec.json.encode(snapshot), "snapshot")
            if mine:
                mark = snapshots.Mark(partition, max(s.upto for s in mine), distrust=log.gate.distrust)
                log.send(topics.RUN_STATE, snapshots.key_of(mark), msgspec.json.encode(mark), "mark")
        log.producer.flush(10)
    with following(log) as fast:
        assert sum(fast.beginning.offsets.values()) > 0
        assert {state.run_id: state for state in fast.states()} == states
        assert [row.epoch for row in fast.history(runs[0].run_id).epochs] == [0, 1, 2]
        waiting.say(CancelRequested(run_id=waiting.run_id, request_id="r1"))
        wait_until(lambda: fast.state(waiting.run_id).state is State.CANCELLED, "the cancel was not folded in")  # type: ignore[union-attr]


def test_workers_are_alive_while_they_renew_their_record_and_gone_after_a_tombstone(log: Log) -> None:
    with following(log) as follower:
        log.send_worker(WorkerInfo("box-1", "box", period_s=2))
        log.send_worker(WorkerInfo("box-2", "box", period_s=60))
        wait_until(lambda: len(follower.workers()) == 2, "the workers never showed up")
        wait_until(lambda: [w.worker_id for w in follower.workers()] == ["box-2"], "a silent worker stays alive")
        log.bury(topics.WORKER_STATE, "box-2", "worker")
        wait_until(lambda: not follower.workers(), "a buried worker stays alive")


def test_a_cluster_that_is_not_there_is_named_within_five_seconds(settings: Settings) -> None:
    started = time.monotonic()
    with pytest.raises(errors.BrokerUnreachable, match=r"127\.0\.0\.1:9"):
        Log.open(Cluster(settings.replace(bootstrap_servers="127.0.0.1:9")))
    assert time.monotonic() - started < 7


def test_missing_topics_are_named_with_the_way_out(settings: Settings) -> None:
    with pytest.raises(errors.TopicMissing, match="topics init"):
        Log.open(Cluster(settings))


def test_topics_that_differ_are_told_exactly(settings: Settings) -> None:
    cluster = Cluster(settings)
    created, differences = broker_topics.init(cluster)
    assert len(created) == 8
    assert differences == []
    other = Cluster(settings.replace(partitions=4, keep_days=5))
    told = [str(difference) for difference in broker_topics.check(other)]
    assert f"{settings.topic_prefix}task: partitions is 3, should be 4" in told
    assert f"{settings.topic_prefix}run_control: retention.ms is 2592000000, should be 432000000" in told


def test_the_rows_of_a_running_run_are_there_as_soon_as_a_follower_has_started(log: Log) -> None:
    run = Player.new(log, epochs=400)
    run.submit()
    run.claim()
    run.start()
    for epoch in range(300):
        run.epoch(epoch)
    for _ in range(5):
        with following(log) as follower:
            assert len(follower.history(run.run_id).epochs) == 300


def test_rows_that_a_busy_broker_gives_late_are_waited_for(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Player.new(log)
    run.submit()
    run.claim()
    run.start()
    run.epoch(0)

    def late(reader: Reader, places: Mapping[Partition, int]) -> None:
        add(reader, places)
        monkeypatch.setattr(Reader, "poll", lambda *of: silent.pop() if silent else poll(*of))

    silent: list[list[Message]] = [[] for _ in range(3)]
    monkeypatch.setattr(follow, "ANNOUNCEMENTS_S", 0.0)  # in which they would be taken for gone
    add, poll = Reader.add, Reader.poll
    monkeypatch.setattr(Reader, "add", late)
    with following(log) as follower:
        assert [row.epoch for row in follower.history(run.run_id).epochs] == [0]


def test_a_snapshot_that_only_a_newer_version_can_read_hides_no_run(log: Log) -> None:
    run = Player.new(log).whole()
    with following(log) as slow:
        known = slow.state(run.run_id)
    assert known is not None
    partition = log.topics.place(topics.RUN_CONTROL, run.run_id)[1]
    theirs = snapshots.Snapshot(partition, known, v=99, distrust=log.gate.distrust)
    log.send(topics.RUN_STATE, snapshots.key_of(theirs), msgspec.json.encode(theirs), "snapshot")
    mark = snapshots.Mark(partition, known.upto, distrust=log.gate.distrust)
    log.send(topics.RUN_STATE, snapshots.key_of(mark), msgspec.json.encode(mark), "mark")
    log.producer.flush(10)
    with following(log) as fast:
        assert fast.state(run.run_id) == known


def test_a_log_that_takes_longer_than_one_look_is_read_all_the_same(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Player.new(log).whole()
    monkeypatch.setattr(follow, "LOOK_S", 0.001)
    with contextlib.closing(Follower(log)) as late:
        with pytest.raises(errors.BrokerUnreachable):
            late.start(0.001)
        assert late.catch_up()
        assert late.state(run.run_id) is not None
    with contextlib.closing(Follower(log)) as given_up:
        assert not given_up.catch_up(lambda: True)


@pytest.mark.parametrize("names", [[b"\xff\xfe"], [b"kj-statement", b"\xff"], [b"\xed\xa0\x80", b"kj-signature"]], ids=repr)
def test_a_header_whose_name_is_no_text_ends_no_reader(log: Log, names: list[bytes]) -> None:
    """confluent-kafka's `headers()` fails on it with a SystemError; a stranger needs no key to write one."""
    run = Player.new(log)
    run.submit()
    with following(log) as follower:
        for base in (topics.RUN_CONTROL, topics.TRAINING_LOG, topics.WORKER_STATE):
            place = log.topics.place(base, run.run_id)
            clumsy.write(log.cluster.servers, place, run.run_id.encode(), b'{"type":"cancel"}', [(name, b"x") for name in names])
        run.claim()
        wait_until(lambda: (state := follower.state(run.run_id)) is not None and state.open is not None, "the reader has ended")
        assert follower.alive
        assert log.junk.total() == 3
