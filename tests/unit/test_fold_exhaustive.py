"""All small histories keep the rules of the fold: what chance does not find."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.runs import snapshots
from kafka_jupyter.runs.snapshots import Mark, Snapshot
from kafka_jupyter.runs.state import Placed, RunState, apply
from tests.support import exhaustive
from tests.support.broken_rules import BROKEN
from tests.support.log_checker import essence
from tests.support.records import RUN
from tests.support.simulated_rules import TRUE

OF_THE_FOLD = [name for name, (rules, _) in BROKEN.items() if rules.apply is not TRUE.apply]
# Whoever waits for its claim to be read back does not need the nonce, and what nobody deletes is no rule of the log: see the simulator.
NOT_HERE = {"records_need_no_nonce", "a_superseded_one_keeps_no_names"}


@pytest.mark.parametrize(
    ("records", "processes", "requests"),
    [
        pytest.param(7, 2, 4, id="7 records, 2 workers, 4 requests"),
        pytest.param(6, 3, 6, id="6 records, 3 processes of 2 names, 6 requests"),
    ],
)
def test_all_small_histories_keep_the_rules(records: int, processes: int, requests: int) -> None:
    result = exhaustive.search(records, exhaustive.ALL_REQUESTS[:requests], processes)
    assert result.found is None
    assert set(result.ends) == {"SUCCEEDED", "FAILED", "CANCELLED", "DEAD"}


@pytest.mark.parametrize("name", [name for name in OF_THE_FOLD if name not in NOT_HERE])
def test_a_simpler_rule_is_refuted_by_a_short_log(name: str) -> None:
    rules, _ = BROKEN[name]
    result = exhaustive.search(6, exhaustive.ALL_REQUESTS[:4], 2, rules.apply)
    assert result.found is not None, f"{name} held in {result.steps} steps"


def test_a_checkpoint_that_supersedes_is_followed_by_deletions() -> None:
    """Else the search would prove nothing about them: a rule that forgets the best one is refuted."""
    result = exhaustive.search(7, (), 1, disposable=BROKEN["all_but_the_last_two"][0].disposable)
    assert result.found is not None
    assert result.found[0].startswith("C1")
    assert [type(record) for record in result.found[1]].count(control.Checkpointed) == 3


def _prefixes(log: tuple[control.Record, ...]) -> list[RunState]:
    states: list[RunState] = []
    for offset, record in enumerate(log):
        states.append(apply(states[-1] if states else None, Placed(record, offset, 0)))
    return states


def _topics(states: list[RunState]) -> Iterator[tuple[list[Snapshot | Mark], int]]:
    """What `run_state` may hold, however old the process was that wrote each key last, and where retention may have the log begin."""
    ended = states[-1].terminal
    lives: list[RunState | None] = [None, *(state for state in states if not state.terminal)]
    ends: list[RunState | None] = [None, *(state for state in states if state.terminal)]
    for live, end, mark in itertools.product(lives, ends, [None, *range(len(states))]):
        written: list[Snapshot | Mark] = [Snapshot(0, state) for state in (end, live) if state is not None]  # a zombie comes last
        if mark is None:
            yield written, 0
        elif written:  # a mark follows snapshots
            for low in range(mark + 2 if ended and (end or mark < len(states) - 1) else 1):
                yield [*written, Mark(0, mark)], low


def test_whoever_begins_with_any_snapshots_of_a_small_history_knows_the_same_in_the_end() -> None:
    checked = 0
    for log in exhaustive.search(5, exhaustive.ALL_REQUESTS[:4], 2).logs:
        states = _prefixes(log)
        for written, low in _topics(states):
            begun = snapshots.beginning(written, {0: (low, len(log))}, lambda _: 0)
            state = begun.states.get(RUN)
            for offset in range(begun.offsets[0], len(log)):
                state = apply(state, Placed(log[offset], offset, 0))
            if RUN in begun.gone:
                assert states[-1].terminal
                assert low > 0
                assert not any(isinstance(one, Snapshot) and one.state.terminal for one in written)
            else:
                assert state is not None
                assert state == states[-1] or (states[-1].terminal and essence(state) == essence(states[-1])), (log, written, low)
            checked += 1
    assert checked > 50_000
