"""What the figures share: how much to measure, and the stack they measure on, started when the first of them asks for it."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

from kafka_jupyter import Client
from kafka_jupyter.brokers import local, local_daemons
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.settings import Settings, env_name

FOLDER = pathlib.Path(__file__).parents[1] / "build" / "bench"
SLOTS = 2
WORKER_READY_S = 120.0  # it imports TensorFlow first
IDLE_S = 60.0


@dataclasses.dataclass(frozen=True)
class Scale:
    """`rounds` of what takes seconds, `runs` tiny ones, `epochs` of the run whose lag is measured, `processes` a kind, `mib`: sizes to
    store, `cuts` of a stream, `stalled` clients beside a fifth as many that read, `history` runs that have ended."""

    rounds: int = 15
    runs: int = 500
    epochs: int = 300
    processes: int = 15
    mib: tuple[int, ...] = (10, 100, 1024)
    cuts: int = 10_000
    stalled: int = 100
    history: int = 10_000


QUICK = Scale(rounds=3, runs=40, epochs=60, processes=5, mib=(1, 10), cuts=300, stalled=20, history=1_000)


@dataclasses.dataclass(frozen=True)
class Stack:
    """One local broker, one worker with two slots and a cache of its own, and the client of this process."""

    settings: Settings
    client: Client
    worker: subprocess.Popen[bytes]

    @property
    def follower(self) -> Follower:
        return self.client.connection().follower()

    def idle_worker(self) -> WorkerInfo:
        """The worker, once all its slots are free."""
        idle: list[WorkerInfo] = []

        def look() -> bool:
            idle[:] = [worker for worker in self.follower.workers() if worker.free == SLOTS]
            return bool(idle)

        if not self.follower.wait(look, IDLE_S):
            raise TimeoutError(f"no worker became idle within {IDLE_S:g} s; its log is {FOLDER / 'worker.log'}")
        return idle[0]


class Bench:
    """`scale`, and for those who need it `kafka` (where one broker is), or `stack`. `close` takes everything down."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._started: list[Any] = []

    @functools.cached_property
    def kafka(self) -> Settings:
        say("starting Apache Kafka")
        settings = _settings()
        local.down(settings)
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        self._started.append(lambda: local.down(settings))
        return local.provide(settings, workers=0)

    @functools.cached_property
    def stack(self) -> Stack:
        settings = self.kafka
        say("starting a worker")
        worker = _start_worker(settings)
        self._started.append(lambda: _stop_worker(worker))
        client = Client(settings)
        self._started.append(client.close)
        stack = Stack(settings, client, worker)
        _await_worker(stack)
        return stack

    def close(self) -> None:
        while self._started:
            self._started.pop()()


def say(text: str) -> None:
    """Progress, on stderr: stdout holds the figures."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _settings() -> Settings:
    """Nothing of the person's own configuration: the figures should not depend on it."""
    return Settings(data_dir=FOLDER / "data", cache_dir=FOLDER / "cache", key_dir=FOLDER / "keys", owner="bench", auto_start=False)


def environment(settings: Settings) -> dict[str, str]:
    """For a process of ours."""
    return local_daemons.environment(settings) | {env_name("config"): os.devnull}


def python(code: str, settings: Settings, *arguments: str) -> str:
    """The last line that this text prints, run by a fresh process with these settings. Raises CalledProcessError."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment(settings), check=True, stdout=subprocess.PIPE, text=True, cwd=FOLDER)
    return done.stdout.strip().splitlines()[-1]


def _start_worker(settings: Settings) -> subprocess.Popen[bytes]:
    env = environment(settings.replace(cache_dir=FOLDER / "worker-cache"))
    command = [sys.executable, "-m", "kafka_jupyter.cli", "worker", "--name", "bench", "--slots", str(SLOTS)]
    with (FOLDER / "worker.log").open("wb") as log:
        return subprocess.Popen(command, cwd=FOLDER, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _await_worker(stack: Stack) -> None:
    deadline = time.monotonic() + WORKER_READY_S
    while not stack.follower.wait(lambda: bool(stack.follower.workers()), 1.0):
        if stack.worker.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"the worker did not come up; its log is {FOLDER / 'worker.log'}")


def _stop_worker(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    try:
        worker.wait(30)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def quiet_keras() -> None:
    """To be called before the first import of Keras."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
