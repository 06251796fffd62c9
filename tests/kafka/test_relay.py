"""Catching up in haste and following with patience: what a start does not wait for, and that nothing is lost or told twice on the way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException

from kafka_jupyter.brokers import producer, relay
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.brokers.reader import BEGINNING, Reader
from kafka_jupyter.brokers.relay import Relay
from kafka_jupyter.protocol import topics
from kafka_jupyter.settings import Settings
from tests.support.playing import Player
from tests.support.waiting import wait_until

PATIENCE = {"fetch.wait.max.ms": "50000"}  # of who comes behind a fetch that finds nothing, nobody is served in time


@pytest.fixture
def run(log: Log) -> Player:
    run = Player.new(log, epochs=9)
    run.submit()
    run.claim()
    run.start()
    return run


@contextlib.contextmanager
def patient(log: Log, settings: Settings) -> Iterator[Follower]:
    with contextlib.closing(Follower(Log(Cluster(settings.replace(kafka=PATIENCE)), log.topics))) as follower:
        follower.start(20)
        yield follower


def test_who_comes_while_a_run_trains_does_not_wait_for_a_fetch_that_finds_nothing(log: Log, settings: Settings, run: Player) -> None:
    run.epoch(0)
    run.epoch(1)
    with patient(log, settings) as follower:
        assert [row.epoch for row in follower.history(run.run_id).epochs] == [0, 1]


def test_the_first_rows_after_a_start_do_not_wait_for_one_either(
    log: Log, settings: Settings, run: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "HANDOVER_S", 60.0)  # so long may the steady one be about its first fetch here
    with patient(log, settings) as follower:
        run.epoch(0)
        assert follower.wait(lambda: bool(follower.history(run.run_id).epochs), 20)


def test_what_is_written_before_in_and_after_the_handover_comes_once_and_in_order(
    log: Log, run: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = log.topics.place(topics.TRAINING_LOG, run.run_id)
    with contextlib.closing(Relay(log.cluster, [place])) as reader:
        came: list[int] = []

        def read(count: int) -> None:
            wait_until(lambda: came.extend(message.offset for message in reader.poll(0.1)) or len(came) >= count, "a record is lost")

        run.epoch(0)
        reader.assign({place: BEGINNING})
        read(1)
        run.epoch(1)
        reader.settle()
        read(2)
        hasty, ended = reader._hasty, threading.Event()
        assert hasty is not None
        monkeypatch.setattr(hasty, "close", lambda: (Reader.close(hasty), ended.set()))
        for epoch in range(2, 5):
            run.epoch(epoch)
        read(5)
        wait_until(lambda: came.extend(message.offset for message in reader.poll(0.1)) or ended.is_set(), "nobody has taken over")
        run.epoch(5)
        read(6)
        assert came == list(range(6))


def test_who_ends_soon_after_the_start_does_not_wait_for_the_end_of_a_long_poll(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Relay(log.cluster, [])) as reader:
        reader.assign(dict.fromkeys(log.topics.all_places(topics.RUN_CONTROL), BEGINNING))
        before_s = time.monotonic()
        assert reader.poll(60) == []
        assert time.monotonic() - before_s < 20
    monkeypatch.setattr(producer, "_POLL_S", 60.0)
    monkeypatch.setattr(producer, "_YOUNG_S", 600.0)
    short = Producer(log.cluster)
    short.close(20)
    assert not short._thread.is_alive()


@pytest.mark.parametrize("trouble", [KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._ALL_BROKERS_DOWN])
def test_the_first_question_of_a_reader_is_asked_again_soon_if_the_client_loses_it(
    log: Log, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    waited: list[float] = []

    class Losing:
        """The client that sends its first question to a connection that it gives up."""

        def __init__(self, client: confluent_kafka.Consumer) -> None:
            self._client = client

        def __getattr__(self, name: str) -> object:
            return getattr(self._client, name)

        def get_watermark_offsets(self, place: confluent_kafka.TopicPartition, timeout: float) -> tuple[int, int]:
            waited.append(timeout)
            if len(waited) == 1:
                raise KafkaException(KafkaError(trouble))
            return self._client.get_watermark_offsets(place, timeout=timeout)

    with contextlib.closing(Reader(log.cluster)) as reader:
        monkeypatch.setattr(reader, "_client", Losing(reader._client))
        place = log.topics.all_places(topics.RUN_CONTROL)[0]
        assert [reader.bounds(place), reader.bounds(place)] == [(0, 0), (0, 0)]
    assert waited[0] < 0.2
    assert min(waited[1], waited[-1]) > 1
