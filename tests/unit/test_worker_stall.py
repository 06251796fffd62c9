"""When a child counts as stalled."""

from __future__ import annotations

from kafka_jupyter.worker.stall import StallClock


def ticks(clock: StallClock, times: range) -> list[int]:
    """At which of these seconds it is stalled."""
    return [now for now in times if clock.stalled(now)]


def test_it_is_stalled_after_the_timeout_without_a_step() -> None:
    clock = StallClock(5.0, 0.0)
    assert ticks(clock, range(1, 9)) == [6, 7, 8]


def test_a_step_begins_anew() -> None:
    clock = StallClock(5.0, 0.0)
    assert ticks(clock, range(1, 6)) == []
    clock.step()
    assert ticks(clock, range(6, 13)) == [11, 12]


def test_a_supervisor_that_was_asleep_does_not_blame_its_child() -> None:
    clock = StallClock(5.0, 0.0)
    assert ticks(clock, range(1000, 1005)) == []
