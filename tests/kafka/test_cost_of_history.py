"""What has ended costs nobody anything but its place in a list: counted in records and bytes, for seconds say more about the machine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers import catching_up
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.settings import Settings
from tests.support.crowd import Member, play
from tests.support.playing import Player
from tests.support.scribe import Scribe, scribe

FEW, MANY, STEP = 1_000, 10_000, 500


@dataclasses.dataclass
class Cost:
    """Of what a process did with one log: records and bytes that it judged, records and bytes that it sent."""

    judged: int = 0
    read: int = 0
    sent: int = 0
    written: int = 0


@contextlib.contextmanager
def counted(log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    cost = Cost()
    origin, send = log.gate.origin, log.producer.send

    def judge(headers: object, key: bytes | None, value: bytes | None, *rest: object) -> object:
        cost.judged += 1
        cost.read += len(value or b"")
        return origin(headers, key, value, *rest)  # type: ignore[arg-type]

    def sending(topic: str, partition: int, key: bytes, value: bytes | None, *rest: object) -> None:
        cost.sent += 1
        cost.written += len(value or b"")
        send(topic, partition, key, value, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(log.gate, "origin", judge)
        patched.setattr(log.producer, "send", sending)
        yield cost


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        yield log


def _work(log: Log, writer: Scribe, ended: int) -> None:
    for first in range(0, ended, STEP):
        play(log, [Member(f"net-{i}", waits=True, ends="Cancelled") for i in range(first, first + STEP)])
        writer.round()


def _start(log: Log, monkeypatch: pytest.MonkeyPatch, runs: int) -> Cost:
    with counted(log, monkeypatch) as cost, contextlib.closing(Follower(log)) as fresh:
        fresh.start()
        assert len(fresh.states()) == runs
    return cost


def _round(log: Log, writer: Scribe, monkeypatch: pytest.MonkeyPatch) -> Cost:
    play(log, [Member(f"last-{i}", waits=True, ends="Cancelled") for i in range(STEP)])
    with counted(log, monkeypatch) as cost:
        writer.round()
    return cost


def test_ten_thousand_ended_runs_cost_a_new_reader_and_a_worker_no_more_records_than_a_thousand(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for their pages, of which one holds hundreds."""
    old = [Member("waits-for-a-gpu", waits=True), Member("silent-for-weeks", ends=None, done=1, beats=1, checkpoints=2)]
    play(log, old)
    with scribe(log) as writer:
        _work(log, writer, FEW)
        round_after_few = _round(log, writer, monkeypatch)
        few = _start(log, monkeypatch, FEW + STEP + 2)
        _work(log, writer, MANY - FEW - STEP)
        many = _start(log, monkeypatch, MANY + 2)
        round_after_many = _round(log, writer, monkeypatch)
    assert few.judged < 1500, "else snapshots are of no use"
    pages = 3 * (MANY - FEW) // STEP
    assert many.judged <= few.judged + pages + 1500, "2,000 records of a partition may pass before what waits is written again"
    assert many.read / MANY <= 1.2 * few.read / FEW
    assert many.sent == few.sent == 0
    assert round_after_many.sent <= round_after_few.sent + len(old)
    assert round_after_many.written <= 1.2 * round_after_few.written


def test_a_worker_that_has_announced_itself_for_a_day_is_judged_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for free in range(500):
        log.send_worker(WorkerInfo("box-1", "box", free=free))
        log.send_worker(WorkerInfo("box-2", "box", free=free))
    log.bury(topics.WORKER_STATE, "box-2", "worker")
    with counted(log, monkeypatch) as cost, contextlib.closing(Follower(log)) as fresh:
        fresh.start()
        assert [(info.worker_id, info.free) for info in fresh.workers()] == [("box-1", 499)]
    assert cost.judged == 2


def test_rows_of_runs_that_have_ended_are_not_judged_before_somebody_asks(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Player.new(log, epochs=2)
    running.submit()
    running.claim()
    running.start()
    running.epoch(0)
    ended = Member("net", epochs=20)
    play(log, [ended, *(Member(f"net-{i}", epochs=20) for i in range(30))])
    running.epoch(1)
    with counted(log, monkeypatch) as cost, contextlib.closing(Follower(log)) as fresh:
        fresh.start()
        records = 4 * 31 + 3
        assert cost.judged == records + 2
        assert [row.epoch for row in fresh.history(running.run_id).epochs] == [0, 1]
        assert cost.judged == records + 2
        assert [row.epoch for row in fresh.history(ended.run_id).epochs] == list(range(20))
        assert cost.judged == records + 3


def test_a_run_that_began_too_far_back_is_read_whole_when_somebody_asks_and_goes_on_live(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catching_up, "LOOK_BACK", 2)
    running = Player.new(log, epochs=9)
    running.submit()
    running.claim()
    running.start()
    for epoch in range(5):
        running.epoch(epoch)
    with counted(log, monkeypatch) as cost, contextlib.closing(Follower(log)) as fresh:
        fresh.start()
        assert cost.judged == 3, "none of its rows"
        assert fresh.lacks_rows(running.run_id)
        running.epoch(5)
        place = log.topics.place(topics.TRAINING_LOG, running.run_id)
        assert fresh.wait(lambda: fresh.position(place) == 6, 10)
        assert [row.epoch for row in fresh.history(running.run_id).epochs] == [0, 1, 2, 3, 4, 5]
        running.epoch(6)
        assert fresh.wait(lambda: fresh.position(place) == 7, 10)
        assert not fresh.lacks_rows(running.run_id)
        assert [row.epoch for row in fresh.history(running.run_id).epochs] == [0, 1, 2, 3, 4, 5, 6]
