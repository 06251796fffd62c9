"""Real workers in real processes, each with its own working directory and cache: they share nothing but Kafka."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

from kafka_jupyter.settings import Settings

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass
class WorkerProcess:
    name: str
    process: subprocess.Popen[bytes]
    folder: pathlib.Path

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text("utf-8", "replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Workers:
    """Starts workers and ends those that are left."""

    def __init__(self, settings: Settings, folder: pathlib.Path, more_env: Mapping[str, str] | None = None) -> None:
        self._settings, self._folder, self._more_env = settings, folder, dict(more_env or {})
        self.all: list[WorkerProcess] = []

    def start(
        self, name: str = "box", slots: int = 1, module: str = "kafka_jupyter.cli", more_env: Mapping[str, str] | None = None
    ) -> WorkerProcess:
        """`module`: what understands the command `worker`. `more_env`: of this worker alone."""
        folder = self._folder / f"{name}-{len(self.all)}"
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", module, "worker", "--name", name, "--slots", str(slots)]
        env = self.environment(folder) | dict(more_env or {})
        with (folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.all.append(WorkerProcess(name, process, folder))
        return self.all[-1]

    def environment(self, folder: pathlib.Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_JUPYTER_")}
        return (
            kept
            | {
                "PYTHONPATH": str(ROOT),
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "KAFKA_JUPYTER_ALLOW_NETWORK": "1",  # most trainings of tests wait for a server of theirs (tests/support/pace.py)
                "KAFKA_JUPYTER_BOOTSTRAP_SERVERS": self._settings.bootstrap_servers,
                "KAFKA_JUPYTER_TOPIC_PREFIX": self._settings.topic_prefix,
                "KAFKA_JUPYTER_LEASE_TTL_S": str(self._settings.lease_ttl_s),
                "KAFKA_JUPYTER_DELIVERY_TIMEOUT_S": str(self._settings.delivery_timeout_s),
                "KAFKA_JUPYTER_DATA_DIR": str(folder / "data"),
                "KAFKA_JUPYTER_CACHE_DIR": str(folder / "cache"),
            }
            | self._more_env
        )

    def stop(self) -> None:
        for worker in self.all:
            if worker.process.poll() is None:
                worker.go_on()
                worker.process.terminate()
        for worker in self.all:
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()


@contextlib.contextmanager
def workers(settings: Settings, folder: pathlib.Path, more_env: Mapping[str, str] | None = None) -> Iterator[Workers]:
    started = Workers(settings, folder, more_env)
    try:
        yield started
    finally:
        started.stop()
