"""The store as several processes see it: one cache, bounded memory."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Mapping

import msgspec
import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol.parts import Part
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from tests.support.local import environment

LARGE = 200 << 20
ALLOWED = 96 << 20  # the window of the store, the queues of the client, two pieces in hand: far from LARGE

OPEN = """
import sys, msgspec
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol.parts import Part
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
settings = Settings.from_env()
log = Log.open(Cluster(settings), create=True)
store = open_store(settings, log)

def say(value):
    print(msgspec.json.encode(value).decode(), flush=True)

def heard(kind):
    return msgspec.json.decode(sys.stdin.readline(), type=kind)

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
"""
SEND_LARGE = f"""
store.put("warm", 1, [b"x"])
before = peak()
ref = store.put("large", {LARGE}, (bytes([n % 256]) * (1 << 20) for n in range({LARGE >> 20})))
say([ref, peak() - before])
"""
FETCH_LARGE = """
store.fetch(store.put("warm", 1, [b"x"]))
before = peak()
path = store.fetch(heard(Part))
say([path.stat().st_size, peak() - before])
"""
FETCH_TOGETHER = """
part = heard(Part)
say("ready")
heard(str)
path = store.fetch(part)
say([str(path), len(path.read_bytes())])
"""
CHURN = """
import random
parts = heard(list[Part])
wrong = 0
for n in range(300):
    with store.lease() as lease:
        part = random.choice(parts)
        data = lease.fetch(part).read_bytes()
        wrong += len(data) != part.size
say(wrong)
"""


class Process:
    """A Python process that has the store open and says one JSON line at a time."""

    def __init__(self, env: Mapping[str, str], code: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OPEN + code], env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, value: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(msgspec.json.encode(value).decode() + "\n")
        self._process.stdin.flush()

    def answer(self, kind: object = object) -> object:
        assert self._process.stdout
        return msgspec.json.decode(self._process.stdout.readline(), type=kind)

    def end(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


@pytest.fixture(params=["kafka:", "file"])
def env(request: pytest.FixtureRequest, settings: Settings, tmp_path: pathlib.Path) -> dict[str, str]:
    return environment(
        settings,
        KAFKA_JUPYTER_BOOTSTRAP_SERVERS=settings.bootstrap_servers,
        KAFKA_JUPYTER_TOPIC_PREFIX=settings.topic_prefix,
        KAFKA_JUPYTER_STORE=f"file://{tmp_path}/store" if request.param == "file" else request.param,
    )


def test_memory_does_not_grow_with_what_is_sent_or_fetched(env: dict[str, str]) -> None:
    sender = Process(env, SEND_LARGE)
    ref, sent = sender.answer(tuple[Part, int])
    sender.end()
    fetcher = Process(env, FETCH_LARGE)
    fetcher.tell(ref)
    size, fetched = fetcher.answer(tuple[int, int])
    fetcher.end()
    assert size == LARGE
    assert sent < ALLOWED
    assert fetched < ALLOWED


def test_two_processes_that_fetch_the_same_at_once_both_get_it(env: dict[str, str], settings: Settings) -> None:
    size = 20 << 20
    log = Log.open(Cluster(settings), create=True)
    store = open_store(settings.replace(store=env["KAFKA_JUPYTER_STORE"], cache_dir=settings.data_dir / "sender"), log)
    ref = store.put("state", size, [bytes(size)])
    store.close()
    log.close()
    pair = [Process(env, FETCH_TOGETHER) for _ in range(2)]
    for process in pair:
        process.tell(ref)
        assert process.answer() == "ready"
    for process in pair:
        process.tell("go")
    answers = [process.answer() for process in pair]
    for process in pair:
        process.end()
    assert answers[0] == answers[1] == [str(settings.cache_dir / "artifacts" / ref.sha256), size]
    assert list((settings.cache_dir / "incoming").iterdir()) == []


def test_processes_that_evict_each_others_files_always_read_the_right_bytes(env: dict[str, str], settings: Settings) -> None:
    log = Log.open(Cluster(settings), create=True)
    store = open_store(settings.replace(store=env["KAFKA_JUPYTER_STORE"], cache_dir=settings.data_dir / "sender"), log)
    parts = [store.put(f"state-{n}", 1000 + n, [bytes(1000 + n)]) for n in range(12)]
    store.close()
    log.close()
    three = [Process(env | {"KAFKA_JUPYTER_CACHE_LIMIT": "4000"}, CHURN) for _ in range(3)]
    for process in three:
        process.tell(parts)
    assert [process.answer() for process in three] == [0, 0, 0]
    for process in three:
        process.end()
    assert sum(path.stat().st_size for path in (settings.cache_dir / "artifacts").iterdir()) < 8000
