"""Random bytes, foreign JSON and unknown versions in every topic, under the eyes of a worker, a handle and a server."""

from __future__ import annotations

import json
import pathlib
import random
import re
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import LOGGED_JUNK
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.protocol import control, ids, topics
from tests.support import raw
from tests.support.jupyter_server import JupyterServer, jupyter_server
from tests.support.scene import Scene
from tests.support.training import mlp, task_of
from tests.support.waiting import wait_until

ROUNDS = 4  # of junk in each partition of each topic
FOLLOWED = (topics.RUN_CONTROL, topics.TRAINING_LOG, topics.WORKER_STATE)
NEWER_TYPES = {
    topics.TASK: "task",
    topics.RUN_CONTROL: "claimed",
    topics.TRAINING_LOG: "rows",
    topics.RUN_STATE: "live",
    topics.WORKER_STATE: "worker",
}


@pytest.fixture
def server(shared: Scene, tmp_path: pathlib.Path) -> Iterator[JupyterServer]:
    with jupyter_server(tmp_path / "server", shared.workers.environment(tmp_path / "server")) as made:
        yield made


@pytest.fixture
def client(shared: Scene) -> Iterator[Client]:
    made = Client(shared.settings)
    yield made
    made.close()


def junk(topic: str, seed: str) -> list[tuple[bytes | None, bytes]]:
    """(key, value) pairs that nobody should have written."""
    chance = random.Random(seed)
    run_id = ids.new_run_id("stranger")
    newer = {"type": NEWER_TYPES.get(topic, "chunk"), "v": 99, "run_id": run_id, "worker_id": run_id}
    return [
        (chance.randbytes(12), chance.randbytes(chance.randrange(1, 4000))),
        (None, chance.randbytes(300)),
        (b"\xff\xfe", b""),
        (b"orders-7", json.dumps({"order": 7, "lines": [{"sku": "x", "price": 1.5}]}).encode()),
        (b"orders-8", b'[1, "two", null]'),
        (b"deep", b'{"type":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        (run_id.encode(), json.dumps(newer).encode()),
        (run_id.encode(), json.dumps(newer | {"v": 1, "n": "one", "rows": 7}).encode()),
        (run_id.encode(), json.dumps({"type": "from-the-future", "v": 1, "run_id": run_id}).encode()),
    ]


def spill(scene: Scene, rounds: int) -> None:
    """Writes junk of every kind into every partition of every topic, a stranger's and one's who may write there."""
    producer = Producer(scene.log.cluster)
    for spec in topics.table(scene.log.topics.partitions):
        for name, partition in scene.log.topics.all_places(spec.name):
            for seed in range(rounds):
                for key, value in junk(spec.name, f"{spec.name}/{partition}/{seed}"):
                    if key is not None or spec.cleanup != "compact":  # the broker itself refuses those
                        signed = raw.signed(scene.log, name, key, value) if seed % 2 else ()
                        producer.send(name, partition, key, value, signed)
    assert producer.flush(60) == 0
    producer.close()


def going(run: TrainingRun) -> None:
    wait_until(lambda: len(run.history.get("loss", [])) > 1, f"{run!r} does not move", within=60)


def test_junk_in_every_topic_is_counted_and_stops_nobody(shared: Scene, client: Client, server: JupyterServer) -> None:
    first = client.submit(task_of(mlp(), "before", 512, 100_000))
    going(first)
    with server.events() as events:
        spill(shared, ROUNDS)
        epoch = len(first.history["loss"])
        wait_until(lambda: len(first.history["loss"]) > epoch + 2, f"{first!r} stands still", within=60)
        first.stop()
        assert first.wait(60).state == "SUCCEEDED"
        second = client.submit(task_of(mlp(), "after", 512, 3))
        assert second.wait(60).state == "SUCCEEDED"
        assert len(second.history["loss"]) == 3
        wait_until(
            lambda: any(event.get("run_id") == second.id and event.get("state") == "SUCCEEDED" for event in events),
            "the server's stream has stopped",
            within=60,
        )
    status, answer = server.get("runs")
    assert status == 200
    assert {run["run_id"]: run["state"] for run in answer["runs"]}.items() >= {(first.id, "SUCCEEDED"), (second.id, "SUCCEEDED")}
    assert server.get("health")[1]["status"] == "ok"
    per_place = ROUNDS * len(junk(topics.RUN_CONTROL, ""))
    counted = client.connection().log.junk
    for base in FOLLOWED:
        places = len(shared.log.topics.all_places(base))
        least = places * per_place - (ROUNDS if base == topics.WORKER_STATE else 0)  # no records without a key there
        assert least <= counted[base] <= places * per_place + 1, base
    (worker,) = shared.workers.all
    assert worker.process.poll() is None
    assert counted[topics.RUN_CONTROL] > LOGGED_JUNK, "nothing shows that the rest is only counted"
    for log in (worker.log, server.log):
        told_of_each_once(shared, log)
    letters = shared.letters("orders-7")
    assert letters, "a task that is none belongs into task_dlq"


def told_of_each_once(scene: Scene, text: str) -> None:
    """The first ones of run_control stand in this log of a process with their places, and at these places there is junk."""
    name = scene.log.topics.name(topics.RUN_CONTROL)
    told = [(int(partition), int(offset)) for partition, offset in re.findall(rf"passed over: {re.escape(name)}\[(\d+)\]@(\d+) ", text)]
    assert len(told) == len(set(told)) == LOGGED_JUNK == text.count(f"passed over: {name}")
    for partition, offset in told:
        (message,) = scene.log.read_range((name, partition), offset, offset + 1)
        assert not isinstance(scene.log.decode(message), control.Record)


def test_whoever_comes_later_reads_past_the_junk(shared: Scene, client: Client) -> None:
    run = client.submit(task_of(mlp(), "known", 64, 2))
    run.wait(60)
    spill(shared, 1)
    late = Follower(shared.log)
    try:
        late.start(60)
        assert late.state(run.id) is not None
        assert [row.epoch for row in late.history(run.id).epochs] == [0, 1]
    finally:
        late.close()
    shared.workers.start("late")
    shared.workers_there(2)
