"""The entry of a child that dies as the name of its task says; all other tasks it trains as the real one does."""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import socket
import threading
from typing import Any

from kafka_jupyter.protocol import codec
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.training import child


def main(sock: socket.socket) -> None:
    _Poisoned(sock).run()


class _Poisoned(child._Child):
    def _train(self, job: Any, *more: Any) -> Any:
        task = codec.decode(job.task)
        assert isinstance(task, Task)
        match task.labels.get("poison"):
            case "segfault":
                ctypes.string_at(0)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does it where memory ends
            case "out-of-memory":
                raise MemoryError("no room for 1 TiB")
            case "kills-its-worker":
                stat = pathlib.Path(f"/proc/{os.getppid()}/stat").read_text()  # of the forkserver, a child of the supervisor
                os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
            case "endless-step":
                threading.Event().wait()
            case "silent-exit":
                os._exit(3)
        return super()._train(job, *more)
