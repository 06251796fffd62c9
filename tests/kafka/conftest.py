"""Workers for the tests of this folder: one that a module shares, or some of a test's own."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping

import pytest

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client
from kafka_jupyter.protocol import ids
from kafka_jupyter.settings import Settings
from tests.support.scene import LEASE_TTL_S, Scene
from tests.support.workers import workers

# A checkpoint is progress: between two kills it would begin the count of failures anew, on a machine slow enough.
NO_CHECKPOINTS = {"KAFKA_JUPYTER_CHECKPOINT_GAP_S": "600", "KAFKA_JUPYTER_CHECKPOINT_EVERY_S": "600"}


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as made:
        yield made


@pytest.fixture
def client(settings: Settings, log: Log) -> Iterator[Client]:  # its topics must be there
    with contextlib.closing(Client(settings)) as made:
        yield made


@pytest.fixture(scope="module")
def module_settings(kafka: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("module")
    return Settings(
        owner="ada@test",
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        auto_start=False,
        bootstrap_servers=kafka.servers,
        topic_prefix=f"m{ids.new_nonce()[:8]}.",
        lease_ttl_s=LEASE_TTL_S,
    )


@pytest.fixture(scope="module")
def shared(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A scene with one worker that all tests of a module use: a worker takes seconds to import TensorFlow."""
    with scene(module_settings, tmp_path_factory.mktemp("workers")) as made:
        made.workers.start("shared", more_env=NO_CHECKPOINTS)
        yield made


@pytest.fixture
def own(settings: Settings, tmp_path: pathlib.Path) -> Iterator[Scene]:
    """A scene of this test alone, with no worker yet; whoever is silent for 3 s is expired."""
    with scene(settings.replace(lease_ttl_s=LEASE_TTL_S), tmp_path / "workers") as made:
        yield made


@contextlib.contextmanager
def scene(settings: Settings, folder: pathlib.Path, more_env: Mapping[str, str] | None = None) -> Iterator[Scene]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log, workers(settings, folder, more_env) as started:
        made = Scene(settings, log, started)
        try:
            yield made
        finally:
            made.close()
            for worker in started.all:
                print(f"--- {worker.name}\n{worker.log[-4000:]}")  # shown where a test fails
