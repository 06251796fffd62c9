"""Which records of the past a follower reads and judges when it begins."""

from __future__ import annotations

import msgspec

from kafka_jupyter.brokers.catching_up import LOOK_BACK, Announcements, tails
from kafka_jupyter.brokers.kafka import Message
from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import RunState
from tests.support.records import claimed, fold, of_attempt, submitted

PLACE, OTHER = ("training_log", 0), ("training_log", 1)


def _running(*offsets: int) -> RunState:
    state = fold([submitted(), claimed(), of_attempt(control.Started)])
    return msgspec.structs.replace(state, starts=tuple(msgspec.structs.replace(state.starts[0], log_offset=offset) for offset in offsets))


def test_rows_are_read_from_where_those_of_the_oldest_run_begin_that_lives() -> None:
    bounds = {PLACE: (10, 50), OTHER: (0, 7)}
    assert tails([], bounds, lambda _: PLACE) == {PLACE: 50, OTHER: 7}
    assert tails([_running(30), _running(40, 20), _running()], bounds, lambda _: PLACE) == {PLACE: 20, OTHER: 7}
    assert tails([_running(3)], bounds, lambda _: PLACE) == {PLACE: 10, OTHER: 7}, "retention took its first rows"


def test_a_run_that_began_long_ago_makes_nobody_read_all_that_others_have_said_since() -> None:
    end = 3 * LOOK_BACK
    bounds = {PLACE: (0, end)}
    assert tails([_running(1), _running(end - LOOK_BACK), _running(end - 5)], bounds, lambda _: PLACE) == {PLACE: end - LOOK_BACK}


def _message(key: bytes, offset: int) -> Message:
    return Message("worker_state", 0, offset, 0, key, b"{}", (), False)


def test_of_each_worker_the_announcement_counts_that_it_signed_last_and_can_be_believed() -> None:
    announced, handed = Announcements(), []
    for key, offset, said_ms in ((b"a", 1, 10), (b"a", 2, 30), (b"b", 3, 5), (b"a", 4, 30), (b"a", 5, 20), (b"b", 6, 5)):
        announced.keep(_message(key, offset), said_ms)

    def believed(message: Message) -> bool:
        handed.append((message.key, message.offset))
        return message.offset not in (4, 6)

    announced.take(believed)
    assert handed == [(b"a", 4), (b"a", 2), (b"b", 6), (b"b", 3)]
    announced.take(believed)
    assert len(handed) == 4, "they are handed over once"
