"""Events of a run, and the rows of one attempt, on runs that are played into real topics."""

from __future__ import annotations

import time

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client, RunEvent
from kafka_jupyter.errors import WaitTimeout
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import LogLine
from tests.support.playing import Player


def test_events_name_their_rows_and_end_at_the_timeout_while_the_run_goes_on(log: Log, client: Client) -> None:
    player = Player.new(log)
    player.submit()
    player.claim()
    player.start()
    player.line("hello")
    player.epoch(0, loss=0.5)
    run, started = client.attach(player.run_id), time.monotonic()
    seen: list[RunEvent] = []
    with pytest.raises(WaitTimeout, match="it goes on"):
        seen.extend(run.events(timeout=0.2))
    assert time.monotonic() - started < 5
    assert [(event.kind, event.seq) for event in seen] == [("state", 0), ("line", 1), ("epoch", 2)], "first where it stands"
    assert (seen[1].text, seen[1].stream, seen[2].seconds) == ("hello", "stdout", 0.1)
    player.succeed()
    assert list(run.events(timeout=20))[-1].state == "SUCCEEDED"


def test_what_an_attempt_said_before_it_broke_off_can_still_be_read(log: Log, client: Client) -> None:
    player = Player.new(log)
    player.submit()
    player.claim()
    player.start()
    player.rows(LogLine(player.next_seq(), 0, 7, "it crashes behind this"))
    player.say(control.Failed(**player.own(), retryable=True, reason="signal"))
    player.claim()
    player.start()
    player.line("again")
    player.succeed()
    run = client.attach(player.run_id)
    assert run.log == ["again"], "the second attempt began from the start: what the first had said was said again"
    assert [row.text for row in run.rows_of(1)] == ["it crashes behind this"]
    assert [row.text for row in run.rows_of(2)] == ["again"]
    assert run.rows_of(3) == []
