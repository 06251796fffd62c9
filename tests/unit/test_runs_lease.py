"""Silence is judged by one's own clock, and only by a reader that has heard everything (rule 6)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.lease import SilenceClock, heartbeat_period
from kafka_jupyter.runs.state import RunState, mark_newer
from tests.support.records import RUN, claimed, fold, of_attempt

TTL_S = 6.0
FRESH_S = heartbeat_period(TTL_S)


class _Naive:
    """What rule 6 says, computed from everything that happened."""

    def __init__(self) -> None:
        self.answers: list[float] = []
        self.looks: list[tuple[float, int]] = []  # (when, last record of the attempt), while the answers were fresh

    def silent(self, now_s: float, last: int) -> bool:
        if not self.answers or now_s - self.answers[-1] > FRESH_S:
            return False
        self.looks.append((now_s, last))
        gaps = [late for early, late in zip(self.answers, self.answers[1:], strict=False) if late - early > FRESH_S]
        unbroken_since = gaps[-1] if gaps else self.answers[0]
        heard = [when for when, seen in self.looks if when >= unbroken_since and seen == last]
        return now_s - heard[0] > TTL_S


# Quarters of a second are exact in binary, so that both sides count alike.
EVENTS = st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.25, 3.0]), st.sampled_from(["answer"] * 4 + ["look"] * 4 + ["speak"]))


@settings(max_examples=400)
@given(st.lists(EVENTS, max_size=80))
def test_an_attempt_is_silent_when_rule_6_says_so(events: list[tuple[float, str]]) -> None:
    clock, naive, now_s = SilenceClock(TTL_S), _Naive(), 1000.0
    state = fold([claimed(), of_attempt(control.Started)])
    for pause_s, event in events:
        now_s += pause_s
        if event == "answer":
            clock.caught_up(now_s)
            naive.answers.append(now_s)
        elif event == "speak":
            state = fold([of_attempt(control.Heartbeat)], state)
        else:
            assert state.open is not None
            assert (clock.expired([state], now_s) == [state]) == naive.silent(now_s, state.open.last)


def _watched(clock: SilenceClock, state: RunState, begin_s: float, seconds: float) -> list[RunState]:
    """What the clock says after so many seconds of fresh answers."""
    silent: list[RunState] = []
    for tick in range(int(seconds * 4) + 1):
        clock.caught_up(begin_s + tick / 4)
        silent = clock.expired([state], begin_s + tick / 4)
    return silent


def test_silence_longer_than_ttl_is_found_and_not_sooner() -> None:
    state = fold([claimed()])
    assert _watched(SilenceClock(TTL_S), state, 0.0, TTL_S) == []
    assert _watched(SilenceClock(TTL_S), state, 0.0, TTL_S + 0.25) == [state]


def test_a_reader_that_was_away_starts_counting_anew() -> None:
    clock, state = SilenceClock(TTL_S), fold([claimed()])
    _watched(clock, state, 0.0, TTL_S - 0.25)
    assert clock.expired([state], 100.0) == [], "it has no fresh answer"
    assert _watched(clock, state, 100.0, TTL_S) == []
    assert _watched(clock, state, 106.0, 0.5) == [state]


def test_who_never_caught_up_blames_nobody() -> None:
    clock, state = SilenceClock(TTL_S), fold([claimed()])
    assert clock.expired([state], 0.0) == clock.expired([state], 99.0) == []


def test_every_attempt_has_its_own_clock() -> None:
    clock, first = SilenceClock(TTL_S), fold([claimed()])
    _watched(clock, first, 0.0, TTL_S)
    second = fold([of_attempt(control.Released), claimed(2)], first)
    assert _watched(clock, second, 6.25, TTL_S) == []
    assert _watched(clock, second, 12.5, 0.25) == [second]


def test_a_run_without_an_attempt_or_of_a_newer_version_is_never_expired() -> None:
    waiting, ended = fold([claimed(), of_attempt(control.Released)]), fold([claimed(), of_attempt(control.Succeeded)])
    newer = mark_newer(fold([claimed()]), RUN, 9, 0)
    for state in (waiting, ended, newer):
        assert _watched(SilenceClock(TTL_S), state, 0.0, 3 * TTL_S) == []
