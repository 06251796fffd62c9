"""What a worker does for all runs, without the worker around it."""

from __future__ import annotations

import contextlib
import queue
import time

import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.worker import reaper
from tests.support.playing import Player
from tests.support.waiting import wait_until


def test_a_dead_that_does_not_get_into_the_log_is_said_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "LETTER_AGAIN_S", 0.1)
    lost: list[control.Record] = []
    send = log.send_control

    def send_control(record: control.Record, on_delivery=None) -> None:  # type: ignore[no-untyped-def]
        if not lost:
            lost.append(record)
            on_delivery(errors.DeliveryUnknown(servers=log.producer.servers, topic="run_control"), -1)
        else:
            send(record, on_delivery)

    monkeypatch.setattr(log, "send_control", send_control)
    changes: queue.SimpleQueue[Change] = queue.SimpleQueue()
    follower = Follower(log, rows=False)
    follower.subscribe(changes.put)
    with contextlib.closing(follower), contextlib.closing(reaper.Reaper(log, follower, "box-1", 30.0)) as made:
        follower.start()
        player = Player.new(log)
        player.submit()
        for _ in range(3):
            player.claim()
            player.start()
            player.say(control.Failed(**player.own(), retryable=True, reason="signal", error="ChildDied", message="killed by signal 9"))
        place = log.topics.place(topics.RUN_CONTROL, player.run_id)

        def said() -> bool:
            while not changes.empty():
                made.saw(changes.get())
            made.tick(time.monotonic(), set())
            return any(isinstance(log.decode(message), control.Dead) for message in log.read_range(place, 0, None))

        wait_until(said, "it is never said again")
    assert isinstance(lost[0], control.Dead)
