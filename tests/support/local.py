"""A local Kafka of a test's own: tests that start, kill and corrupt it cannot use the session's."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster, Message
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.brokers.topics import open_topics
from kafka_jupyter.protocol import topics
from kafka_jupyter.settings import Settings
from tests.support.waiting import wait_until

ROOT = pathlib.Path(__file__).parents[2]
UP = "; ".join(
    (
        "from kafka_jupyter.brokers import local",
        "from kafka_jupyter.settings import Settings",
        "print(local.up(Settings.from_env()).servers)",
    )
)


@contextlib.contextmanager
def stopped_at_the_end(settings: Settings) -> Iterator[Settings]:
    try:
        yield settings
    finally:
        local.down(settings)


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """For a child process: these settings' folders, and the package of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_JUPYTER_")}
    ours = {"PYTHONPATH": str(ROOT), "KAFKA_JUPYTER_DATA_DIR": str(settings.data_dir), "KAFKA_JUPYTER_CACHE_DIR": str(settings.cache_dir)}
    return kept | ours | more


def run_python(code: str, env: Mapping[str, str], timeout: float = 90) -> str:
    """What a fresh Python process prints; its errors fail the test."""
    done = subprocess.run([sys.executable, "-c", code], env=dict(env), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(settings: Settings, value: bytes) -> int:
    """An acked record in `task`, partition 0; its offset."""
    cluster = Cluster(local.resolve(settings))
    names = open_topics(cluster, create=True)
    with contextlib.closing(Producer(cluster)) as producer:
        return producer.write(names.name(topics.TASK), 0, "digits-1", value, ())


def read(settings: Settings, offset: int) -> bytes | None:
    """The value at `offset` of `task`, partition 0."""
    cluster = Cluster(local.resolve(settings))
    name = open_topics(cluster).name(topics.TASK)
    with contextlib.closing(Reader(cluster)) as reader:
        reader.assign({(name, 0): offset})

        def first() -> list[Message]:
            return reader.poll(0.2)

        return wait_until(first, f"nothing can be read at offset {offset}")[0].value
