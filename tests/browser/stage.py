"""The whole stack for browser tests: topics on the session's Kafka, a worker, JupyterLab with both extensions."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from playwright.sync_api import BrowserContext

from kafka_jupyter.protocol import control, ids
from kafka_jupyter.runs.state import RunState
from tests.browser.lab import Lab, Notebook, running_lab
from tests.support.scene import READY_S, Scene
from tests.support.training import Submission
from tests.support.waiting import wait_until

LOAD = "%load_ext kafka_jupyter"

# Notebooks share a kernel, so only the first of them waits for the imports.
PRELUDE = f"""{LOAD}
import keras
from sklearn.datasets import load_digits

digits = load_digits()
x, y = (digits.data / 16).astype("float32"), digits.target

def make_model(optimizer="adam"):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10)])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model
"""


@dataclasses.dataclass
class Stage:
    lab: Lab
    scene: Scene
    kernel: str = ""

    def open(self, context: BrowserContext, name: str, *cells: str, own_kernel: bool = False) -> Notebook:
        """A notebook with these cells, in a kernel that has been used by others before unless it has its own."""
        file = f"{name}.ipynb"
        self.lab.write(file, *cells)
        started = self.lab.start_kernel(file, "" if own_kernel else self.kernel)
        if not own_kernel:
            self.kernel = started
        book = self.lab.open(context, file)
        book.wait_kernel()
        return book

    def submission(self, name: str) -> Submission:
        """The run of this name, as soon as it is in the log."""
        state = wait_until(lambda: self._named(name), f"no run {name} appeared in the log", within=READY_S)
        assert state.submitted is not None
        return Submission(self.scene.log, state.run_id, self.scene.log.read_task(state.submitted.task, state.run_id))

    def _named(self, name: str) -> RunState | None:
        named = (state for state in self.scene.follower.states() if state.submitted is not None and state.submitted.name == name)
        return next(named, None)

    def clear(self) -> None:
        """Ends kernels that nobody shares and what a failed test has left, so that the next one finds free slots and an idle kernel."""
        for session in self.lab.api("api/sessions"):
            if session["kernel"]["id"] != self.kernel:
                self.lab.api(f"api/sessions/{session['id']}", "DELETE")
        for state in self.scene.follower.states():
            if not state.terminal:
                self.scene.log.write_control(control.CancelRequested(run_id=state.run_id, request_id=ids.new_request_id(), by="ada@test"))


@contextlib.contextmanager
def running_stage(
    scene: Scene, root: pathlib.Path, *arguments: str, disabled: Sequence[str] = (), application: str = "jupyterlab"
) -> Iterator[Stage]:
    """`arguments`, `disabled`, `application`: as in `running_lab`."""
    ours = {name: value for name, value in scene.workers.environment(root).items() if name.startswith(("KAFKA_JUPYTER_", "TF_"))}
    ours["KAFKA_JUPYTER_OWNER"] = "ada@test"
    with running_lab(root, *arguments, environment=ours, disabled=disabled, application=application) as lab:
        yield Stage(lab, scene)
