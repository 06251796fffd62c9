"""Which offsets of the tasks a worker may commit: consumer lag is an upper bound on the tasks that nobody has claimed."""

from __future__ import annotations

from kafka_jupyter.protocol.control import TaskPlace
from kafka_jupyter.worker.dispatch import CommitTracker

MINE, OTHER = ("task", 0), ("task", 1)


def at(offset: int, partition: int = 0) -> TaskPlace:
    return TaskPlace("task", partition, offset)


def tracker() -> CommitTracker:
    made = CommitTracker()
    made.owned({MINE})
    return made


def test_the_lowest_offset_that_nobody_has_claimed_is_committed_once() -> None:
    tasks = tracker()
    for offset in range(3):
        tasks.seen(at(offset), f"run-{offset}", claimed=False)
    assert tasks.due() == {MINE: 0}
    tasks.claimed("run-1", at(1))
    assert tasks.due() == {}
    tasks.claimed("run-0", at(0))
    assert tasks.due() == {MINE: 2}
    tasks.claimed("run-2", at(2))
    assert tasks.due() == {MINE: 3}
    assert tasks.due() == {}


def test_a_task_that_was_claimed_before_it_was_read_has_to_be_read_before_the_worker_may_pause() -> None:
    tasks = tracker()
    tasks.claimed("run-4", at(4))
    assert tasks.behind
    tasks.seen(at(3), "run-3", claimed=True)
    assert tasks.behind
    tasks.seen(at(4), "run-4", claimed=True)
    assert not tasks.behind
    assert tasks.due() == {MINE: 5}


def test_claims_in_partitions_of_others_and_of_what_was_read_leave_nothing_to_be_read() -> None:
    tasks = tracker()
    tasks.claimed("run-7", at(7, partition=1))
    tasks.seen(at(0), "run-0", claimed=False)
    tasks.claimed("run-0", at(0))
    assert not tasks.behind


def test_a_partition_that_went_to_another_worker_is_forgotten() -> None:
    tasks = tracker()
    tasks.claimed("run-4", at(4))
    tasks.seen(at(0), "run-0", claimed=False)
    tasks.owned({OTHER})
    assert not tasks.behind
    assert tasks.due() == {}


def test_a_run_whose_task_stands_in_the_log_twice_or_that_was_cancelled_before_its_submitted_holds_nothing_back() -> None:
    tasks = tracker()
    tasks.seen(at(0), "twice", claimed=False)
    tasks.seen(at(1), "twice", claimed=False)
    tasks.seen(at(2), "cancelled", claimed=False)
    tasks.claimed("twice", at(0))
    assert tasks.due() == {MINE: 2}
    tasks.claimed("cancelled", None)
    assert tasks.due() == {MINE: 3}
