"""What a person gets in the cell for bad input that is found before anything is sent, and on the card of a run that nobody can take."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import kafka_jupyter
from kafka_jupyter import errors
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.topics import Topics
from kafka_jupyter.client import Client
from kafka_jupyter.client import connection as connections
from kafka_jupyter.protocol import topics as spec
from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.settings import Settings
from tests.support.cli import cli
from tests.support.notebooks import run_notebook
from tests.support.training import digits, mlp, task_of
from tests.support.waiting import wait_until
from tests.support.workers import Workers

WITHIN_S = 5 + 3  # what was promised, and what a busy machine takes


@pytest.fixture
def client(settings: Settings) -> Client:
    return Client(settings)


@pytest.fixture(autouse=True)
def nothing_stays_connected() -> Iterator[None]:
    yield
    for connection in connections.opened():
        connections.disconnect(connection)


def refused(settings: Settings, kind: type[errors.KafkaJupyterError], rows: int = 64) -> str:
    """What a `fit` with these settings is refused with, in time, leaving the model as it was."""
    x, y = digits()
    model = mlp()
    before = model.get_weights()
    started = time.monotonic()
    with pytest.raises(kind) as caught, kafka_jupyter.train("never", settings=settings):
        model.fit(x[:rows], y[:rows])
    assert time.monotonic() - started < WITHIN_S
    model.evaluate(x[:rows], y[:rows], verbose=0)  # not pending
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    return str(caught.value)


def test_topics_that_are_missing_are_named_with_the_command_that_makes_them(settings: Settings) -> None:
    said = refused(settings, errors.TopicMissing)
    assert f"{settings.topic_prefix}task" in said
    assert settings.bootstrap_servers in said
    assert "`kafka-jupyter topics init`" in said


def made_anew(settings: Settings, base: str, partitions: int, **config: str) -> str:
    """The name of a topic as somebody else has made it."""
    admin, name = Admin(Cluster(settings)), settings.topic_prefix + base
    admin.delete([name])
    wait_until(lambda: name not in admin.info().partitions, "the topic is still there")
    admin.create([(name, partitions, 1, {key.replace("_", "."): value for key, value in config.items()})])
    wait_until(lambda: admin.info().partitions.get(name) == partitions, "the topic is not there")
    return name


def test_topics_of_another_shape_are_refused_because_runs_would_not_be_found(settings: Settings, topics: Topics) -> None:
    made_anew(settings, spec.RUN_CONTROL, 5, message_timestamp_type="LogAppendTime")
    said = refused(settings, errors.TopicMismatch)
    assert settings.bootstrap_servers in said
    assert "run_control" in said
    assert "`kafka-jupyter topics init` says exactly what differs" in said
    assert "partitions is 5, should be 3" in cli("topics", "init", settings=settings).out


@pytest.mark.parametrize(
    ("base", "found", "differs"),
    [
        (spec.TASK, "compact", "cleanup.policy is compact, should be delete"),
        (spec.RUN_CONTROL, "compact,delete", "cleanup.policy is compact,delete, should be delete"),
        (spec.TRAINING_LOG, "compact", "cleanup.policy is compact, should be delete"),
        (spec.ARTIFACT, "delete", "cleanup.policy is delete, should be compact"),
    ],
)
def test_topics_that_would_lose_records_are_refused(settings: Settings, topics: Topics, base: str, found: str, differs: str) -> None:
    name = made_anew(settings, base, 3, cleanup_policy=found, message_timestamp_type="LogAppendTime")
    said = refused(settings, errors.TopicMismatch)
    assert f"The topics at {settings.bootstrap_servers} are not as kafka_jupyter needs them: {name}: {differs}. " in said
    assert "`kafka-configs --alter`" in said
    assert "another topic_prefix" in said


def test_topics_with_the_clients_times_are_refused_and_all_differences_named(settings: Settings, topics: Topics) -> None:
    task = made_anew(settings, spec.TASK, 3, cleanup_policy="delete", message_timestamp_type="CreateTime")
    log = made_anew(settings, spec.TRAINING_LOG, 3, cleanup_policy="compact", message_timestamp_type="LogAppendTime")
    said = refused(settings, errors.TopicMismatch)
    first = f"{task}: message.timestamp.type is CreateTime, should be LogAppendTime"
    second = f"{log}: cleanup.policy is compact, should be delete"
    assert f"{first}; {second}. " in said


def test_a_data_set_above_the_limit_is_refused_with_size_limit_and_another_store(
    client: Client, settings: Settings, topics: Topics
) -> None:
    assert client.runs() == []  # connected, with another limit
    said = refused(settings.replace(store_limit=200_000), errors.ArtifactTooLarge, rows=1797)
    assert "has 0.4 MiB; the store kafka: takes at most 0.2 MiB" in said
    assert "KAFKA_JUPYTER_STORE=" in said
    assert "raise KAFKA_JUPYTER_STORE_LIMIT" in said
    assert client.runs() == []
    x, y = digits()
    with kafka_jupyter.train("allowed", settings=settings.replace(store_limit=500_000), background=True, check=False):
        run = mlp().fit(x, y)
    wait_until(lambda: client.runs(name="allowed") == [run], "it was not submitted")


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Requirements(keras="2.4.0"), "Waiting: no worker has keras 2.4 (it has 3.15.1). 1 worker is there."),
        (Requirements(backend="jax"), "Waiting: no worker has the backend jax (it has tensorflow). 1 worker is there."),
        (Requirements(memory=1 << 50), "Waiting: no worker has 1048576.0 GiB of memory (it has 8.0). 1 worker is there."),
        (Requirements(device="gpu"), "Waiting: no worker has a GPU. 1 worker is there."),
    ],
)
def test_a_run_that_nobody_can_take_says_what_it_waits_for(
    client: Client, settings: Settings, topics: Topics, needs: Requirements, said: str
) -> None:
    versions = {"keras": "3.15.1", "backend": "tensorflow", "tensorflow": "2.21.0"}
    run = client.submit(task_of(mlp(), "needy", 64, 1, requirements=needs))
    wait_until(lambda: "none is there" in run.card()["waiting"], "it waits for something else")
    client.connection().log.send_worker(WorkerInfo("box-1", "box", slots=1, free=1, memory=8 << 30, versions=versions, period_s=60))
    wait_until(lambda: run.card()["waiting"] == said, f"the card says {run.card()['waiting']!r}")
    assert run.waiting == said
    assert run.state == "QUEUED"


def test_an_unknown_run_is_one_line_with_the_nearest_ids_everywhere(client: Client, settings: Settings, topics: Topics, tmp_path) -> None:
    run = client.submit(task_of(mlp(), "digits", 64, 1))
    wait_until(lambda: run.card()["submitted_ms"], "Submitted was never read")
    with pytest.raises(errors.RunNotFound) as caught:
        client.attach("digist")
    said = str(caught.value)
    assert said == f"There is no run 'digist'. Nearest: {run.id}."
    assert str(cli("show", "digist", settings=settings).error) == said
    env = Workers(settings, tmp_path).environment(tmp_path) | {"KAFKA_JUPYTER_OWNER": settings.owner}
    cells = {"load": "%load_ext kafka_jupyter", "attach": "%kafka_attach digist", "cancel": "%kafka_cancel digist"}
    for name, cell in run_notebook(cells, tmp_path, env).items():
        assert name == "load" or cell.text == f"UsageError: {said}\n"
