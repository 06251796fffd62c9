from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from kafka_jupyter.models.capture import CapturedFit
from kafka_jupyter.protocol import frames
from kafka_jupyter.worker.children import Children
from tests.support.jobs import job_of
from tests.support.watching import Watched

CHECK = "check"


@dataclasses.dataclass
class Training:
    """A child that trains while the caller trains its own."""

    folder: pathlib.Path  # the child's own
    watched: Watched

    def done(self) -> frames.Done:
        """What the child said when it had trained. It has ended, and ended well."""
        ended = self.watched.exit(within=100)
        assert (ended.code, ended.signal) == (0, 0), (self.watched.frames, self.watched.lines)
        done = self.watched.frames[-1]
        assert isinstance(done, frames.Done), getattr(done, "traceback", done)
        return done

    def outcome(self) -> dict[str, Any]:
        return dict(json.loads(pathlib.Path(self.done().files["outcome"]).read_text()))

    def state(self) -> pathlib.Path:
        """The file with the trained state."""
        return pathlib.Path(self.done().files["state"])

    def loss(self) -> float:
        """Of the first rows, as the child has computed it."""
        self.done()
        (answer,) = (f for f in self.watched.frames if isinstance(f, frames.AppliedFrame) and f.request_id == CHECK)
        return float(answer.settings["worker_loss"])


class Twin:
    """Children as a worker has them, one a training; the next one warms up while the last one trains."""

    def __init__(self, entry: str) -> None:
        self._children = Children(train=entry, name="twin")
        self._children.keep_spare()

    def train(self, captured: CapturedFit, folder: pathlib.Path, loss: float | None = None) -> Training:
        """Hands what travels to a child, and the notebook's `loss` of the first rows to compare with, if there is one."""
        job = job_of(captured, folder, captured.seed)
        watched = Watched(self._children)
        self._children.keep_spare()
        watched.child.send(job)
        if loss is not None:
            watched.child.send(frames.Apply(CHECK, {"check_loss": loss, "check_rtol": captured.check_rtol}))
        return Training(pathlib.Path(job.folder), watched)

    def close(self) -> None:
        self._children.close()


@pytest.fixture(scope="package")
def twin() -> Iterator[Twin]:
    made = Twin("tests.capture.twin:main")
    yield made
    made.close()


@pytest.fixture(scope="package")
def child() -> Iterator[Twin]:
    """As `twin`, of the worker's own entry: nothing looks at what was trained."""
    made = Twin("kafka_jupyter.training.child:main")
    yield made
    made.close()
