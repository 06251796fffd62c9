"""Kafka goes away in the middle of things and comes back: killed, or frozen so that its connections stay and nobody answers."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

import kafka_jupyter
from kafka_jupyter import errors
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.protocol.rows import EpochEnded
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from tests.kafka.conftest import scene
from tests.support.breakable import BreakableKafka, breakable_kafka
from tests.support.scene import Scene, gone
from tests.support.training import digits, endless, endless_task, mlp, submit
from tests.support.waiting import wait_until

STORED = 60  # epochs: it must still train when Kafka goes away, and have ended soon after
TTL_S = 5.0  # who trains has so long, once Kafka is back, to be heard of before it is taken for lost
SOON_S = 60.0  # two cores that many tests share


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BreakableKafka]:
    with breakable_kafka(Settings(data_dir=tmp_path_factory.mktemp("breakable"))) as kafka:
        yield kafka


@pytest.fixture
def kafka_of_our_own(breakable: BreakableKafka) -> Iterator[BreakableKafka]:
    """It is there again for the next test, whatever this one has come to."""
    yield breakable
    breakable.bring_back()


@pytest.fixture(scope="module")
def own(breakable: BreakableKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two workers: the one that does not train is there to take a run away from the one that seems lost."""
    folder = tmp_path_factory.mktemp("outage")
    settings = Settings(
        owner="ada@test",
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        auto_start=False,
        bootstrap_servers=breakable.servers,
        lease_ttl_s=TTL_S,
        delivery_timeout_s=2.0,
    )
    with scene(settings, folder / "workers") as made:
        made.workers.start("first")
        made.workers.start("second")
        made.workers_there(2)
        yield made


@pytest.fixture
def client(own: Scene) -> Iterator[Client]:
    made = Client(own.settings)
    yield made
    made.close()


def epochs_after(run: TrainingRun, ms: float) -> list[EpochEnded]:
    """Epochs that ended on the worker after this time of day."""
    return [row for _, row in run.rows() if isinstance(row, EpochEnded) and row.at_ms > ms]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_training_goes_on_without_kafka_and_everything_is_caught_up(
    kafka_of_our_own: BreakableKafka, own: Scene, client: Client, how: str
) -> None:
    run = client.submit(endless_task(f"outage-{how}"))
    wait_until(lambda: len(run.history.get("loss", [])) >= 3, f"{run!r} never got going", within=SOON_S)
    getattr(kafka_of_our_own, how)()
    gone_ms = time.time() * 1000
    wait_until(lambda: run.waiting.startswith("reconnecting"), f"the handle shows {run.waiting!r}", within=SOON_S)
    assert str(run.card()["waiting"]).startswith("reconnecting")
    assert run.state == "RUNNING"
    lease_is_over_ms = gone_ms + 2000 * TTL_S
    wait_until(lambda: time.time() * 1000 > lease_is_over_ms, "the clock stands still", within=SOON_S)
    kafka_of_our_own.bring_back()
    back_ms = time.time() * 1000
    wait_until(lambda: epochs_after(run, back_ms), "nothing came after the outage", within=SOON_S)
    during = [row for row in epochs_after(run, gone_ms) if row.at_ms < back_ms]
    assert len(during) > 3, "the training stood still"
    wait_until(lambda: not run.waiting, f"the handle still shows {run.waiting!r}", within=SOON_S)
    beats = sum(isinstance(record, control.Heartbeat) for record in own.log_records(run.id))
    wait_until(
        lambda: sum(isinstance(record, control.Heartbeat) for record in own.log_records(run.id)) > beats + 2,
        "its worker stays silent after the outage",
        within=SOON_S,
    )
    run.stop()
    assert run.wait(SOON_S).state == "SUCCEEDED"
    epochs = [row.epoch for _, row in run.rows() if isinstance(row, EpochEnded)]
    assert epochs == list(range(len(epochs)))
    assert run.card()["attempt"] == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_training_that_ends_while_kafka_is_away_is_stored_when_it_is_back(kafka_of_our_own: BreakableKafka, own: Scene, how: str) -> None:
    run = submit(own.log, "stored", epochs=STORED)
    own.reached(run, 1)
    worker, pid = own.holder(run), own.child_pid(run)
    getattr(kafka_of_our_own, how)()
    wait_until(lambda: gone(pid), "the training never ended", within=SOON_S)
    wait_until(lambda: f"attempt 1 of {run.run_id} waits (storing)" in worker.log, "it never tried to store anything", within=SOON_S)
    kafka_of_our_own.bring_back()
    state = own.ended(run)
    assert (state.state, state.last_n) == (State.SUCCEEDED, 1)
    assert [row.epoch for row in own.follower.history(run.run_id).epochs] == list(range(STORED))


def test_a_submit_whose_outcome_is_unknown_names_its_id_and_the_same_cell_again_makes_no_second_run(
    kafka_of_our_own: BreakableKafka, own: Scene, client: Client
) -> None:
    x, y = digits()
    client.runs()  # connected, with all metadata: only the acknowledgement is missing
    model = mlp()

    def cell() -> Any:
        with kafka_jupyter.train("unknown", settings=own.settings):
            return model.fit(x[:64], y[:64], epochs=2)

    kafka_of_our_own.freeze()
    started = time.monotonic()
    with pytest.raises(errors.SubmitUnknown) as caught:
        cell()
    assert time.monotonic() - started < 7  # 2 s, and what a busy machine takes
    run_id = caught.value.fields["run_id"]
    assert run_id in str(caught.value)
    assert "never be a second run" in str(caught.value)
    kafka_of_our_own.bring_back()
    history = cell()
    assert len(history.epoch) == 2
    assert [run.id for run in client.runs(name="unknown")] == [run_id]
    assert [type(record) for record in own.log_records(run_id)].count(control.Succeeded) == 1


def test_claims_of_an_outage_leave_nobody_waiting_for_a_worker_that_has_given_them_up(
    kafka_of_our_own: BreakableKafka, own: Scene, tmp_path: pathlib.Path
) -> None:
    """It claims for as long as it believes that Kafka is there; what it sent before it gave up arrives when Kafka is back."""
    settings = own.settings.replace(topic_prefix="impatient.", lease_ttl_s=20.0)
    with scene(settings, tmp_path / "workers", {"KAFKA_JUPYTER_OUTAGE_GRACE_S": "6"}) as impatient:
        worker = impatient.workers.start("impatient")
        first = endless(impatient.log, "first")
        impatient.running(first)
        pid = impatient.child_pid(first)
        second = submit(impatient.log, "second", epochs=2)
        wait_until(lambda: impatient.follower.state(second.run_id) is not None, "the second run is not known")
        kafka_of_our_own.freeze()
        wait_until(lambda: gone(pid), "its training goes on for longer than the grace", within=SOON_S)
        wait_until(lambda: "Kafka does not answer" in worker.log, "it claims the second run again and again", within=SOON_S)
        kafka_of_our_own.bring_back()
        assert impatient.ended(second).state is State.SUCCEEDED
        assert not [record for record in impatient.records(second) if isinstance(record, control.Expired)]
        released = [record for record in impatient.records(second) if isinstance(record, control.Released)]
        assert {record.reason for record in released} <= {"unwanted"}


def test_a_reader_that_only_asks_for_ends_takes_in_what_its_client_tells(kafka_of_our_own: BreakableKafka, own: Scene) -> None:
    """Else it would pile up for as long as Kafka is away, in every worker."""
    cluster = Cluster(own.settings)
    place = own.log.topics.all_places(topics.RUN_CONTROL)[0]
    with contextlib.closing(Reader(cluster)) as reader:
        reader.bounds(place)
        kafka_of_our_own.kill()
        for _ in range(20):
            with pytest.raises(errors.BrokerError):
                reader.bounds(place, 0.2)
        told = str(cluster.unreachable())
        kafka_of_our_own.bring_back()
        assert "Connect to" in told or "brokers are down" in told, told
