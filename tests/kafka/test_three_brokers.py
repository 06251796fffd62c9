"""Three brokers, as a team has them: a record lies on two before it counts, and the death of a leader ends no training."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.brokers.topics import open_topics
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.protocol import control, ids, topics
from kafka_jupyter.protocol.rows import EpochEnded
from kafka_jupyter.settings import Settings
from kafka_jupyter.worker.prober import Prober
from tests.kafka.conftest import scene
from tests.support import local as support
from tests.support.scene import Scene
from tests.support.training import endless_task, mlp, task_of
from tests.support.waiting import wait_until

SOON_S = 60.0  # two cores that many tests share
TOLD_S = 20.0  # the Kafka client by itself would ask who leads every 30 s


@pytest.fixture(scope="module")
def nodes(three_brokers: local.Endpoint) -> Iterator[Settings]:
    """Settings that know the local Kafka itself; all three nodes run, before and afterwards."""
    own = Settings(data_dir=pathlib.Path(three_brokers.folder).parent)
    local.up(own)
    yield own
    local.up(own)


@pytest.fixture(scope="module")
def three(nodes: Settings, three_brokers: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("three")
    settings = Settings(
        owner="ada@test",
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        auto_start=False,
        bootstrap_servers=three_brokers.servers,
        topic_prefix=f"m{ids.new_nonce()[:8]}.",
        lease_ttl_s=6.0,
    )
    with scene(settings, folder / "workers") as made:
        made.workers.start("three")
        yield made


@pytest.fixture
def asking(three: Scene) -> Iterator[Reader]:
    with contextlib.closing(Reader(Cluster(three.settings))) as reader:
        yield reader


@pytest.fixture
def client(three: Scene) -> Iterator[Client]:
    made = Client(three.settings)
    yield made
    for run in made.runs(owner=three.settings.owner):
        run.cancel()
    made.close()


def test_of_three_brokers_a_killed_one_is_missed_and_started_again(three_brokers: local.Endpoint, settings3: Settings) -> None:
    own = settings3.replace(data_dir=pathlib.Path(three_brokers.folder).parent)
    before = local.up(own)  # not as they were first: other tests kill nodes as well
    offset = support.write(settings3, b"on three")
    os.kill(before.pids[1], signal.SIGKILL)

    def missed() -> list[int]:
        found = local.endpoint(own)
        assert found is not None, "two of three still run"
        return [node.id for node in found.dead]

    assert wait_until(missed, "the killed broker is not missed") == [2]
    for _ in range(8):  # whoever comes now may be told for 9 s that the dead one is the controller
        open_topics(Cluster(settings3))
    assert support.read(settings3, offset) == b"on three"
    again = local.up(own)
    assert again.servers == before.servers
    assert [a == b for a, b in zip(again.pids, before.pids, strict=True)] == [True, False, True]
    assert again.dead == ()


def test_every_topic_lies_on_three_brokers_and_two_must_have_a_record_before_it_is_acked(three: Scene) -> None:
    admin = Admin(Cluster(three.settings))
    names = [three.log.topics.name(spec.name) for spec in topics.table()]
    found = admin.info()
    assert {name: found.replication[name] for name in names} == dict.fromkeys(names, 3)
    assert {name: config["min.insync.replicas"] for name, config in admin.configs(names).items()} == dict.fromkeys(names, "2")


def test_topics_that_are_made_while_somebody_looks_are_found(three: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kafka_jupyter.brokers.topics.SECOND_LOOK_S", SOON_S)  # three busy brokers take their time to make so many
    fresh = three.settings.replace(topic_prefix=f"fresh.{three.settings.topic_prefix}")
    with ThreadPoolExecutor(4) as pool:
        looking = [pool.submit(open_topics, Cluster(fresh)) for _ in range(4)]
        made = open_topics(Cluster(fresh), create=True)
        assert [look.result(SOON_S) for look in looking] == [made] * 4


def test_a_training_outlives_the_broker_that_leads_its_partition(three: Scene, nodes: Settings, client: Client, asking: Reader) -> None:
    run = client.submit(endless_task("outlives"))
    wait_until(lambda: len(run.history.get("loss", [])) >= 3, f"{run!r} never got going", within=SOON_S)
    lost = leader(three, run)
    places = [place for base in (topics.RUN_CONTROL, topics.TRAINING_LOG) for place in three.log.topics.all_places(base)]
    for place in places:
        asking.bounds(place)  # so that it believes to know who leads
    os.kill(pid_of(nodes, lost), signal.SIGKILL)
    killed_ms = time.time() * 1000
    wait_until(lambda: leader(three, run) not in (lost, -1), "nobody took over the partition", within=SOON_S)
    took_over_s = time.monotonic()
    assert all(asking.bounds(place, 10.0)[0] == 0 for place in places)
    assert time.monotonic() - took_over_s < TOLD_S, "who leads now was asked too late"
    wait_until(lambda: epochs_after(run, killed_ms), "no epoch came after the broker had gone", within=SOON_S)
    run.stop()
    assert run.wait(SOON_S).state == "SUCCEEDED"
    epochs = [row.epoch for _, row in run.rows() if isinstance(row, EpochEnded)]
    assert epochs == list(range(len(epochs)))
    assert run.card()["attempt"] == 1
    assert [type(record) for record in three.log_records(run.id)].count(control.Succeeded) == 1
    on_two = client.submit(task_of(mlp(), "on-two", 64, 2))
    assert len(on_two.wait(SOON_S).history["loss"]) == 2
    assert local.up(nodes).dead == ()
    wait_until(lambda: lost in in_sync(three, run), "the broker that came back never caught up", within=SOON_S)
    assert client.submit(task_of(mlp(), "on-three", 64, 2)).result(timeout=SOON_S).built


def test_a_partition_that_nobody_leads_does_not_hide_where_the_others_end(nodes: Settings, three: Scene) -> None:
    alone = three.settings.replace(topic_prefix=f"alone.{three.settings.topic_prefix}", replication=1, lease_ttl_s=12.0)
    answers: list[int] = []
    with contextlib.ExitStack() as closing:
        log = closing.enter_context(contextlib.closing(Log.open(Cluster(alone), create=True)))
        reader = closing.enter_context(contextlib.closing(Reader(log.cluster)))
        prober = closing.enter_context(contextlib.closing(Prober(log, reader, 12.0, lambda number, _end, _asked: answers.append(number))))
        prober.start()
        everything = set(range(log.topics.partitions))
        wait_until(lambda: set(answers) == everything, "not every partition has answered")
        led = Admin(log.cluster)._metadata(10).topics[log.topics.name(topics.RUN_CONTROL)].partitions
        victim = led[0].leader
        lost = {number for number in everything if led[number].leader == victim}
        assert lost != everything
        os.kill(pid_of(nodes, victim), signal.SIGKILL)
        closing.callback(local.up, nodes)
        for rounds in (1, 3):  # one thread asks: after a round nothing from before the kill is on its way
            answers.clear()
            wait_until(lambda n=rounds: min(map(answers.count, everything - lost)) >= n, "the others are not heard of", within=SOON_S)  # type: ignore[misc]
        assert not set(answers) & lost


def leader(three: Scene, run: TrainingRun) -> int:
    """The broker that leads the run's partition of run_control; -1 while there is none."""
    return int(partition(three, run).leader)


def in_sync(three: Scene, run: TrainingRun) -> list[int]:
    return list(partition(three, run).isrs)


def partition(three: Scene, run: TrainingRun):  # type: ignore[no-untyped-def]  # confluent_kafka's PartitionMetadata
    name, number = three.log.topics.place(topics.RUN_CONTROL, run.id)
    return Admin(Cluster(three.settings))._metadata(10).topics[name].partitions[number]


def pid_of(nodes: Settings, broker: int) -> int:
    found = local.recorded(nodes)
    assert found is not None
    return next(node.daemon.pid for node in found.nodes if node.id == broker)


def epochs_after(run: TrainingRun, ms: float) -> list[EpochEnded]:
    """Epochs that ended on the worker after this time of day."""
    return [row for _, row in run.rows() if isinstance(row, EpochEnded) and row.at_ms > ms]
