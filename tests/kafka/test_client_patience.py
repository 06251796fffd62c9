"""How long a cell waits for a worker, by a clock that the test moves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.capture.waiting import Patience
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.settings import Settings
from tests.support.playing import Player
from tests.support.waiting import wait_until

FIVE_MINUTES = 300.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Queue:
    """A run that waits in the queue, and who looks at it."""

    def __init__(self, client: Client) -> None:
        self.player = Player.new(client.connection().log)
        self.player.submit()
        self.run: TrainingRun = client.attach(self.player.run_id)
        self.follower: Follower = client.connection().follower()
        self.clock = Clock()

    def look(self, patience: Patience, at_s: float) -> None:
        self.clock.now = at_s
        patience.look(self.run, self.follower.state(self.run.id), self.follower)


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)), contextlib.closing(Client(settings)) as client:
        yield Queue(client)


def test_headless_five_minutes_without_any_worker_end_the_wait(queue: Queue) -> None:
    patience = Patience(0.0, headless=True, clock=queue.clock)
    queue.look(patience, 10.0)
    queue.look(patience, 10.0 + FIVE_MINUTES - 0.1)
    with pytest.raises(errors.QueueTimeout, match=r"within 300 s.*still QUEUED") as caught:
        queue.look(patience, 10.0 + FIVE_MINUTES)
    assert f"%kafka_attach {queue.run.id}" in str(caught.value)
    assert queue.run.state == "QUEUED"


def test_with_a_person_present_it_waits_for_ever(queue: Queue) -> None:
    patience = Patience(0.0, headless=False, clock=queue.clock)
    for day in range(3):
        queue.look(patience, day * 86_400.0)


def test_headless_a_busy_worker_that_could_take_it_is_waited_for(queue: Queue) -> None:
    patience = Patience(0.0, headless=True, clock=queue.clock)
    queue.look(patience, 0.0)
    queue.player.log.send_worker(WorkerInfo("box-1", "box", free=0, running=["other"]))
    wait_until(queue.follower.workers, "the worker was never seen")
    queue.look(patience, FIVE_MINUTES)
    queue.player.log.bury("worker_state", "box-1", "worker")
    wait_until(lambda: not queue.follower.workers(), "the worker never went")
    queue.look(patience, FIVE_MINUTES + 1)
    queue.look(patience, 2 * FIVE_MINUTES)
    with pytest.raises(errors.QueueTimeout):
        queue.look(patience, 2 * FIVE_MINUTES + 1)


def test_a_limit_that_was_given_counts_every_second_in_the_queue(queue: Queue) -> None:
    patience = Patience(7.0, headless=False, clock=queue.clock)
    queue.look(patience, 0.0)
    queue.player.claim()
    wait_until(lambda: queue.run.state == "CLAIMED", "the claim was never read")
    queue.look(patience, 100.0)
