"""Kafka away, at submit and before: named within seconds, and never a second run. And nothing configured at all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

import kafka_jupyter
from kafka_jupyter import errors
from kafka_jupyter.brokers import local, local_daemons
from kafka_jupyter.brokers.daemons import Daemon
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.topics import open_topics
from kafka_jupyter.client import Client
from kafka_jupyter.settings import Settings
from tests.support.local import environment, run_python, stopped_at_the_end
from tests.support.training import digits, mlp
from tests.support.waiting import wait_until


@pytest.fixture
def own(bare_settings: Settings) -> Iterator[Settings]:
    """A local Kafka that this test may freeze."""
    with stopped_at_the_end(bare_settings):
        made = bare_settings.replace(bootstrap_servers=local.up(bare_settings).servers)
        open_topics(Cluster(made), create=True)
        yield made


@contextlib.contextmanager
def frozen(settings: Settings) -> Iterator[None]:
    """The broker answers nobody, but its connections stay open: the outcome of a send is unknown."""
    found = local.endpoint(settings)
    assert found is not None
    for pid in found.pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in found.pids:
            os.kill(pid, signal.SIGCONT)


def test_a_kafka_that_does_not_answer_is_named_within_five_seconds(bare_settings: Settings) -> None:
    x, y = digits()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = bare_settings.replace(bootstrap_servers=f"127.0.0.1:{nobody.getsockname()[1]}")
        model = mlp()
        started = time.monotonic()
        with pytest.raises(errors.BrokerUnreachable) as caught, kafka_jupyter.train("never", settings=settings):
            model.fit(x[:64], y[:64])
        assert time.monotonic() - started < 5 + 3, "capture included, on a busy machine"
    assert settings.bootstrap_servers in str(caught.value)
    assert "kafka-jupyter up" in str(caught.value)
    model.evaluate(x[:64], y[:64], verbose=0)  # not pending: nothing was submitted


def test_with_no_kafka_at_all_the_way_out_is_named(bare_settings: Settings) -> None:
    with pytest.raises(errors.BrokerUnreachable, match="kafka-jupyter up"):
        Client(bare_settings).runs()


def test_a_submit_whose_outcome_is_unknown_is_tried_again_with_the_same_id(own: Settings) -> None:
    x, y = digits()
    model = mlp()
    named: list[str] = []

    def cell() -> list[str]:
        with kafka_jupyter.train("unknown", settings=own, background=True, check=False) as session:
            model.fit(x[:64], y[:64])
        return [run.id for run in session.runs]

    with contextlib.closing(Client(own)) as client:
        client.runs()  # connected
        with frozen(own):
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(errors.SubmitUnknown) as caught:
                    cell()
                assert time.monotonic() - started < 12
                named.append(caught.value.fields["run_id"])
                assert "it uses the same run id" in str(caught.value)
        ran = cell()
        assert {*named, *ran} == {ran[0]}
        wait_until(lambda: not client.connection().outbox.pending(), "Submitted was never read back", within=30)
        assert [run.id for run in client.runs()] == ran
        assert ran != cell_after_release(client, ran[0], cell), "a new execution after a good one is a new run"


def cell_after_release(client: Client, run_id: str, cell) -> list[str]:
    client.attach(run_id).release()
    return cell()


def test_an_outage_during_the_wait_is_shown_and_survived(own: Settings) -> None:
    x, y = digits()
    with contextlib.closing(Client(own)) as client, kafka_jupyter.train("queued", settings=own, background=True, check=False):
        run = mlp().fit(x[:64], y[:64])
        wait_until(lambda: run.name == "queued" and run.card()["submitted_ms"], "Submitted was never read", within=30)
        found = local.endpoint(own)
        assert found is not None
        for pid in found.pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "reconnecting" in run.waiting, "nothing said that Kafka is away", within=30)
        assert local.up(own.replace(bootstrap_servers="")).servers == own.bootstrap_servers
        run.cancel()
        with pytest.raises(errors.RunCancelled):
            run.wait(timeout=60)
        assert "reconnecting" not in client.attach(run.id).waiting


@pytest.mark.timeout(300)
def test_with_nothing_configured_a_submit_starts_kafka_and_a_worker_where_there_is_none(bare_settings: Settings) -> None:
    code = """
import sys
sys.stderr = sys.stdout  # where the lines go
import numpy as np, keras, kafka_jupyter
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
with kafka_jupyter.train("first"):
    history = model.fit(np.ones((64, 4)), np.ones(64), epochs=2, verbose=0)
print(len(history.epoch), history.history["loss"][1] < history.history["loss"][0])
"""

    def script() -> list[str]:
        shown = run_python(code, environment(bare_settings, TF_CPP_MIN_LOG_LEVEL="2"), timeout=240).splitlines()
        assert shown[-1] == "2 True"
        return [line for line in shown if "now run" in line]

    def workers() -> list[Daemon]:
        return local_daemons.living_workers(local.folder_of(bare_settings))

    with stopped_at_the_end(bare_settings):
        (said,) = script()
        assert said.startswith("Nothing was configured: a local Apache Kafka")
        assert local.endpoint(bare_settings) is not None, "it outlives the script"
        (worker,) = workers()
        assert script() == [], "there is a worker"
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not workers(), "the worker lives on")
        (said,) = script()
        assert said.startswith("The local Apache Kafka had no worker: one worker now runs in the background.")
        assert len(workers()) == 1
