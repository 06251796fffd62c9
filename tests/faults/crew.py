"""W real worker processes on their posts. Whoever is killed is replaced at once, as a supervisor of processes would do it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
from collections.abc import Mapping, Sequence

import psutil

from kafka_jupyter.settings import Settings
from tests.support.workers import WorkerProcess, Workers


@dataclasses.dataclass(frozen=True)
class Post:
    """How the worker at this post is started. `servers`: its own way to Kafka, through a gate for example."""

    slots: int = 1
    servers: str = ""
    module: str = "kafka_jupyter.cli"
    more_env: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Crew:
    def __init__(self, settings: Settings, folder: pathlib.Path, posts: Sequence[Post], more_env: Mapping[str, str] | None = None) -> None:
        self._workers = Workers(settings, folder, {"KAFKA_JUPYTER_CLAIM_GRACE_S": "0.05"} | dict(more_env or {}))
        self._posts = list(posts)
        self._frozen: set[int] = set()
        self.now: list[WorkerProcess] = []
        for i in range(len(posts)):
            self.now.append(self._start(i))

    def __len__(self) -> int:
        return len(self.now)

    @property
    def all(self) -> list[WorkerProcess]:
        """Also those that are gone."""
        return self._workers.all

    def environment(self, folder: pathlib.Path) -> dict[str, str]:
        return self._workers.environment(folder)

    def _start(self, post: int) -> WorkerProcess:
        how = self._posts[post]
        env = dict(how.more_env) | ({"KAFKA_JUPYTER_BOOTSTRAP_SERVERS": how.servers} if how.servers else {})
        return self._workers.start(f"w{post}", how.slots, how.module, env)

    def add(self, post: Post) -> int:
        self._posts.append(post)
        self.now.append(self._start(len(self._posts) - 1))
        return len(self.now) - 1

    def kill(self, post: int, replace: bool = True) -> WorkerProcess:
        lost = self.now[post]
        lost.kill()
        self._frozen.discard(post)
        if replace:
            self.now[post] = self._start(post)
        return lost

    def mend(self) -> int:
        """Mans the posts whose workers have ended; how many that were."""
        lost = [post for post, worker in enumerate(self.now) if worker.process.poll() is not None]
        for post in lost:
            self.now[post] = self._start(post)
        return len(lost)

    def terminate(self, post: int, replace: bool = True) -> WorkerProcess:
        """SIGTERM; it takes its time to go."""
        leaving = self.now[post]
        leaving.go_on()
        self._frozen.discard(post)
        leaving.process.send_signal(signal.SIGTERM)
        if replace:
            self.now[post] = self._start(post)
        return leaving

    def freeze(self, post: int) -> None:
        """SIGSTOP to the supervisor; its child goes on training."""
        self.now[post].pause()
        self._frozen.add(post)

    def thaw(self, post: int) -> None:
        self.now[post].go_on()
        self._frozen.discard(post)

    def is_frozen(self, post: int) -> bool:
        return post in self._frozen

    def post_of(self, worker_id: str) -> int:
        """Where the worker with this id stands; the id is the name of its post and a random part."""
        return int(worker_id.rpartition("-")[0].removeprefix("w"))

    def died(self) -> list[str]:
        """Workers on their posts that have ended by themselves."""
        return [f"{worker.name} ended with {worker.process.returncode}" for worker in self.now if worker.process.poll() is not None]

    def tell_where_they_are(self) -> None:
        """Each worker writes the stacks of its threads into its log."""
        for worker in self.now:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGUSR1)

    def memory(self) -> int:
        """Bytes resident of the largest supervisor."""
        return max(psutil.Process(worker.process.pid).memory_info().rss for worker in self.now if worker.process.poll() is None)

    def close(self) -> None:
        for post in list(self._frozen):
            self.thaw(post)
        self._workers.stop()


def alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet trains no more."""
    try:
        os.kill(pid, 0)
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
