"""One background reader per process for all clients and handles, also when it is slow, and none after `close`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.settings import Settings
from tests.support.playing import Player
from tests.support.waiting import wait_until


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "kafka_jupyter-follower"}


@pytest.fixture
def before() -> set[threading.Thread]:
    """Those of other tests' connections."""
    return readers()


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as made:
        yield made


def test_many_clients_and_handles_share_one_reader(settings: Settings, log: Log, before: set[threading.Thread]) -> None:
    run_id = Player.new(log).whole().run_id
    clients = [Client(settings) for _ in range(5)]
    with contextlib.closing(clients[0]):
        asking = [threading.Thread(target=client.runs) for client in clients]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        handles = [TrainingRun(client, run_id) for client in clients]
        assert [handle.wait(10).state for handle in handles] == ["SUCCEEDED"] * 5
        assert [len(handle.history["loss"]) for handle in handles] == [3] * 5
        assert len(readers() - before) == 1
    assert readers() <= before


def test_a_reader_that_is_slow_is_waited_for_and_not_doubled(
    settings: Settings, log: Log, before: set[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, catch_up = threading.Event(), Follower.catch_up

    def slow(follower: Follower) -> bool:
        assert go_on.wait(30)
        return catch_up(follower)

    monkeypatch.setattr(Follower, "catch_up", slow)
    with contextlib.closing(Client(settings)) as client:
        found = client.connection()
        for _ in range(3):
            with pytest.raises(errors.BrokerUnreachable):
                found.follower(0.01)
        go_on.set()
        assert found.follower(30).alive
        assert len(readers() - before) == 1


def test_who_closes_while_it_catches_up_leaves_no_reader(settings: Settings, log: Log, before: set[threading.Thread]) -> None:
    with contextlib.closing(Client(settings)) as client:
        client.connection()
        wait_until(lambda: len(readers() - before) == 1, "it never began")
    wait_until(lambda: readers() <= before, "the reader goes on")
