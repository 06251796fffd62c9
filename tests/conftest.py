"""One real Kafka for the whole session; every test has its own topics, folders and consumer groups on it.

If it cannot start, the tests that need it fail: they never skip.
"""

from __future__ import annotations

import atexit
import gc
import os
import pathlib
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest
from xdist.remote import Producer

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.topics import Topics, open_topics
from kafka_jupyter.settings import Settings
from tests.support.keys import trust_ourselves
from tests.support.scheduling import ByFile

# Playwright keeps an event loop running in its process for as long as the browser's tests last: what needs a loop of its own comes before.
# After them come the many short files with which the processes end at the same time.
ORDER = ("faults", "unit", "server", "notebook", "acceptance", "browser", "capture", "kafka")


def pytest_configure() -> None:
    # A config folder of this process and of all that it starts: nobody's own profiles are read, and every Kafka of the tests is signed,
    # for there is a trust file.
    os.environ["XDG_CONFIG_HOME"] = folder = tempfile.mkdtemp(prefix="kafka_jupyter-config-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # at the very end: threads of ours still read the trust file until then
    trust_ourselves(Settings())
    # A shell has what it runs in the background ignore Ctrl-C, and every process that a test starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes is the machine's business: three processes share two cores.
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("busy")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for a broker is marked `kafka`, so that `-m "not kafka"` runs without one.

    The faults come first: they are the longest that stay in one process (`make test` has three, each with a Kafka of its own). Of the
    last room the long files come first.
    """
    items.sort(key=lambda item: (ORDER.index(_room(item)), not item.path.name.startswith("test_worker_")))
    for item in items:
        if {"kafka", "three_brokers", "brokers"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")


def pytest_collection_finish() -> None:
    """What is loaded by now stays, Keras with its million objects among it: no collection need look at it again."""
    gc.collect()
    gc.freeze()


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(pathlib.Path(__file__).parent).parts[0]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Endpoint]:
    """The session's Kafka with one broker."""
    yield from _running(tmp_path_factory.mktemp("kafka-1"), 1)


@pytest.fixture(scope="module")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Endpoint]:
    """A Kafka with three brokers for the tests of a file."""
    yield from _running(tmp_path_factory.mktemp("kafka-3"), 3)


def _running(folder: pathlib.Path, brokers: int) -> Iterator[local.Endpoint]:
    settings = Settings(data_dir=folder)
    try:
        yield local.up(settings, brokers)
    finally:
        local.down(settings)


@pytest.fixture
def bare_settings(tmp_path: pathlib.Path) -> Settings:
    """Settings with folders of this test and no Kafka; a local one started with them is the test's own."""
    return Settings(owner="ada@test", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", auto_start=False)


@pytest.fixture
def settings(kafka: local.Endpoint, bare_settings: Settings) -> Settings:
    """Settings with a topic prefix of this test on the session's Kafka; the topics are not there yet."""
    return bare_settings.replace(bootstrap_servers=kafka.servers, topic_prefix=_prefix())


@pytest.fixture
def settings3(three_brokers: local.Endpoint, bare_settings: Settings) -> Settings:
    """As `settings`, on the three brokers of the file."""
    return bare_settings.replace(bootstrap_servers=three_brokers.servers, topic_prefix=_prefix())


@pytest.fixture
def topics(settings: Settings) -> Topics:
    """The topics of this test, made."""
    return open_topics(Cluster(settings), create=True)


def _prefix() -> str:
    return f"t{secrets.token_hex(4)}."
