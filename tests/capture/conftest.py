from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from kafka_jupyter.models.capture import CapturedFit
from kafka_jupyter.store import arrays

ROOT = pathlib.Path(__file__).parents[2]


class Twin:
    """One long-lived process for all cases: importing TensorFlow takes longer than any of them."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        script = pathlib.Path(__file__).with_name("twin.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    def train(self, captured: CapturedFit, folder: pathlib.Path) -> concurrent.futures.Future[dict[str, Any]]:
        """Writes what travels into `folder` and has it trained there; the answer comes while the caller trains its own."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_bytes(captured.config)
        (folder / "state").write_bytes(captured.state)
        for i, leaf in enumerate(captured.leaves):
            (folder / f"leaf-{i}").write_bytes(b"".join(arrays.chunks(leaf)[1]))
        task = {"structure": captured.structure, "leaves": len(captured.leaves), "fit": captured.fit, "callbacks": captured.callbacks}
        (folder / "task.json").write_bytes(msgspec.json.encode(task))
        return self._thread.submit(self._ask, folder)

    def _ask(self, folder: pathlib.Path) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\n".encode())
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the other process ended with {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer

    def close(self) -> None:
        self._thread.shutdown()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="session")
def twin() -> Iterator[Twin]:
    made = Twin()
    yield made
    made.close()
