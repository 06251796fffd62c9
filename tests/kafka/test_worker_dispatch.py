"""Who takes what: the group on `task`, by the broker's own account, and what its committed offsets say."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from tests.kafka.conftest import scene
from tests.support.scene import LEASE_TTL_S, READY_S, Scene
from tests.support.training import Submission, endless, submit
from tests.support.waiting import wait_until

GRACE_S = 600.0  # who does not own the partition would wait for so long
SOON_S = 30.0  # two cores that many tests share


@pytest.fixture
def strict(settings: Settings, tmp_path: pathlib.Path) -> Iterator[Scene]:
    """Only the owner of a task's partition takes it."""
    env = {"KAFKA_JUPYTER_CLAIM_GRACE_S": str(GRACE_S)}
    with scene(settings.replace(lease_ttl_s=LEASE_TTL_S), tmp_path / "workers", env) as made:
        yield made


def group(log: Log) -> str:
    return f"{log.topics.prefix}kafka_jupyter.workers"


def owned(log: Log) -> list[int]:
    """How many partitions each member of the workers' group has."""
    client = AdminClient({"bootstrap.servers": log.cluster.servers})
    description = client.describe_consumer_groups([group(log)])[group(log)].result(10)
    return sorted(len(member.assignment.topic_partitions) for member in description.members)


def lag(log: Log) -> int:
    """What Kafka's tools show as the lag of the workers' group."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": log.cluster.servers, "group.id": group(log)})
    try:
        places = [TopicPartition(*place) for place in log.topics.all_places(topics.TASK)]
        committed = consumer.committed(places, timeout=10)
        return sum(consumer.get_watermark_offsets(place, timeout=10)[1] - max(0, place.offset) for place in committed)
    finally:
        consumer.close()


def partition(run: Submission) -> int:
    return run.log.topics.place(topics.TASK, run.run_id)[1]


@pytest.mark.timeout(600)
def test_twenty_runs_on_three_workers_all_succeed_exactly_once(own: Scene) -> None:
    for name in ("a", "b", "c"):
        own.workers.start(name)
    own.workers_there(3)
    runs = [submit(own.log, f"run{i}", epochs=1) for i in range(20)]
    states = [own.ended(run, within=90) for run in runs]
    assert {str(state.state) for state in states} == {"SUCCEEDED"}
    assert [state.last_n for state in states] == [1] * 20
    for run in runs:
        assert [type(record) for record in own.records(run)].count(control.Succeeded) == 1
    assert len({state.starts[-1].worker for state in states}) > 1


def test_cancel_of_a_queued_run_needs_no_worker(own: Scene) -> None:
    run = submit(own.log)
    run.cancel()
    assert own.ended(run, within=5).state is State.CANCELLED


def test_the_owner_of_a_tasks_partition_takes_it_while_others_wait(strict: Scene) -> None:
    for name in ("first", "second"):
        strict.workers.start(name)
    strict.workers_there(2)
    wait_until(lambda: owned(strict.log) == [1, 2], "the partitions are not shared out", within=READY_S)
    taker: dict[int, set[str]] = {}
    for number in range(6):
        run = submit(strict.log, f"run{number}", rows=64, epochs=1)
        taker.setdefault(partition(run), set()).add(strict.ended(run, within=SOON_S).starts[-1].worker)
    assert all(len(workers) == 1 for workers in taker.values()), taker


def test_a_busy_worker_keeps_its_partitions_and_the_lag_shows_what_nobody_has_claimed(strict: Scene) -> None:
    strict.workers.start()
    strict.workers_there(1)
    busy = endless(strict.log, "busy")
    strict.running(busy)
    wait_until(lambda: lag(strict.log) == 0, "a task that is claimed still counts", within=SOON_S)
    waiting = [submit(strict.log, f"waiting{number}", rows=64, epochs=1) for number in range(4)]
    wait_until(lambda: lag(strict.log) == 4, "the lag does not show the waiting tasks", within=SOON_S)
    assert owned(strict.log) == [3]
    assert {str(strict.state(run).state) for run in waiting} == {"QUEUED"}
    assert "free slot" in str(strict.follower.card(waiting[0].run_id)["waiting"])
    busy.stop()
    assert all(strict.ended(run, within=SOON_S).state is State.SUCCEEDED for run in waiting)
    wait_until(lambda: lag(strict.log) == 0, "tasks that are claimed still count", within=SOON_S)
