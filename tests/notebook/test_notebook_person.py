"""With a person in front: the interrupt button, a kernel restart in the middle, cards that move on their own."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from kafka_jupyter.client import Client, outcome
from kafka_jupyter.protocol.task import Task
from tests.support.notebooks import MIME
from tests.support.pace import paced_in_a_cell
from tests.support.scene import Scene
from tests.support.training import Submission
from tests.support.waiting import wait_until

LONG = 5000
NOTEBOOK = "/home/ada/digits.ipynb"
VIEW = "application/vnd.jupyter.widget-view+json"

BUILD = """
import keras
from sklearn.datasets import load_digits
bunch = load_digits()
x, y = (bunch.data / 16).astype("float32")[:256], bunch.target[:256]
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
"""


class Person:
    """Runs cells in a kernel and looks at what comes."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager, self._client = manager, client
        self.bundles: list[dict[str, Any]] = []  # of cards, in order
        self.cards = 0
        self.errors: list[dict[str, Any]] = []
        self.text = ""

    def start(self, code: str) -> str:
        return str(self._client.execute(code, allow_stdin=True))

    def look(self, until: Any, what: str, within: float = 60) -> None:
        """Reads messages until `until(message)`."""
        deadline = time.monotonic() + within
        while True:
            assert time.monotonic() < deadline, f"{what} never came; errors: {self.errors}, text: {self.text!r}"
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except TimeoutError:
                continue
            except Exception as empty:
                if type(empty).__name__ != "Empty":
                    raise
                continue
            content = message["content"]
            if message["msg_type"] in ("display_data", "update_display_data") and MIME in content["data"]:
                self.bundles.append(content["data"])
                self.cards += message["msg_type"] == "display_data"
            elif message["msg_type"] == "error":
                self.errors.append(content)
            elif message["msg_type"] == "stream":
                self.text += content["text"]
            if until(message):
                return

    def run(self, code: str) -> None:
        """Until the cell is over."""
        self.finish(self.start(code))

    def finish(self, cell: str) -> None:
        self.look(
            lambda m: m["msg_type"] == "status" and m["content"]["execution_state"] == "idle" and m["parent_header"].get("msg_id") == cell,
            "the end of the cell",
        )

    def complete(self, line: str) -> list[str]:
        """What the Tab key offers."""
        reply = self._client.complete(line, len(line), reply=True, timeout=30)
        return list(reply["content"]["matches"])

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        self._manager.restart_kernel(now=True)
        self._client.wait_for_ready(timeout=60)
        self.bundles.clear()
        self.run("%load_ext kafka_jupyter")


@pytest.fixture
def newcomer(kernel_env: dict[str, str], tmp_path: pathlib.Path) -> Iterator[Person]:
    """With a fresh kernel: nothing is loaded."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=kernel_env | {"JPY_SESSION_NAME": NOTEBOOK}, cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Person(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def person(newcomer: Person) -> Person:
    newcomer.run("%load_ext kafka_jupyter")
    return newcomer


@pytest.fixture
def client(shared: Scene) -> Iterator[Client]:
    with contextlib.closing(Client(shared.settings)) as made:
        yield made
        for run in made.runs():
            run.cancel()


def endless() -> str:
    """The line of a cell whose training goes on until somebody ends it, and leaves the processor to the others."""
    return f"model.fit(x, y, epochs={LONG}, callbacks=[{paced_in_a_cell()}], verbose=0)"


def going(client: Client, name: str) -> Any:
    def found() -> Any:
        runs = client.runs(name=name)
        return runs[0] if runs and runs[0].history else None

    return wait_until(found, f"{name} never got going", within=60)


@pytest.mark.parametrize("first", ["", "import asyncio; await asyncio.sleep(0)"], ids=["plain", "async"])
def test_the_interrupt_button_leaves_the_cell_and_the_run_goes_on(person: Person, client: Client, first: str) -> None:
    name = f"left-{'async' if first else 'plain'}"
    cell = person.start(f"%%kafka_train {name}\n{first}\n{BUILD}\nmodel.fit(x, y, epochs={LONG}, verbose=0)\nprint('not reached')")
    run = going(client, name)
    person.interrupt()
    person.finish(cell)
    (error,) = person.errors
    assert error["ename"] == "Detached"
    assert len(error["traceback"]) == 1
    assert f"%kafka_attach {run.short}" in error["traceback"][0]
    assert "not reached" not in person.text
    assert run.state == "RUNNING"
    person.run(f"back = %kafka_attach {run.short}\nback.stop()\nback.result()\nprint(len(model.history.epoch) > 0)")
    assert "True" in person.text


def test_after_a_kernel_restart_in_the_middle_attach_shows_all_epochs_from_the_first(person: Person, client: Client) -> None:
    person.start(f"%%kafka_train middle\n{BUILD}\n{endless()}")
    run = going(client, "middle")
    wait_until(lambda: len(run.history["loss"]) >= 3, "no three epochs were seen", within=60)
    person.restart()
    person.run("run = %kafka_attach middle\nprint(run.id, len(run.history['loss']) >= 3, run.state)")
    assert f"{run.id} True RUNNING" in person.text, person.errors
    assert person.bundles[0][MIME]["runs"][0]["run_id"] == run.id
    person.run("run.stop(); new = run.result(); print('trained', type(new).__name__, len(new.history.epoch) == len(run.history['loss']))")
    assert "trained Sequential True" in person.text
    person.run("print('from the first', [e.epoch for e in run.events() if e.kind == 'epoch'] == new.history.epoch)\n%kafka_attach middle")
    assert "from the first True" in person.text
    assert "SUCCEEDED" in person.bundles[-1]["text/plain"]
    assert person.bundles[-1][MIME]["runs"][0]["rows"][0]["epoch"] == 0


def test_a_card_in_the_background_moves_and_ends_without_any_cell(person: Person, client: Client) -> None:
    person.run(f"%%kafka_train alone --background\n{BUILD}\nrun = model.fit(x, y, epochs=60, verbose=0)")
    assert VIEW in person.bundles[0]
    person.look(lambda _: VIEW not in person.bundles[-1], "the final card")
    assert "SUCCEEDED" in person.bundles[-1]["text/plain"]
    assert person.bundles[-1][MIME]["runs"][0]["rows"][-1]["epoch"] == 59, "the last epoch is on it"


@pytest.mark.parametrize("first", ["%load_ext kafka_jupyter", "import kafka_jupyter"])
def test_a_with_block_has_the_card_of_its_cell_in_a_kernel_that_has_captured_nothing_yet(
    newcomer: Person, client: Client, first: str
) -> None:
    newcomer.run(first)
    block = "with kafka_jupyter.train('block', background=True) as block:\n    model.fit(x, y, epochs=60, verbose=0)"
    newcomer.run(f"import kafka_jupyter\n{BUILD}\n{block}\nprint('headless', block.place.headless)")
    assert "headless False" in newcomer.text, newcomer.errors
    assert VIEW in newcomer.bundles[0]
    newcomer.look(lambda _: VIEW not in newcomer.bundles[-1], "the final card")
    assert "SUCCEEDED" in newcomer.bundles[-1]["text/plain"]
    task = task_of(client, "block")
    assert newcomer.bundles[-1][MIME]["runs"][0]["rows"][-1]["epoch"] == 59
    assert (task.notebook, block in task.source) == (NOTEBOOK, True)
    newcomer.run("%kafka_runs --name block")
    assert f"{task.run_id} SUCCEEDED" in newcomer.text


def test_the_blocks_of_a_cell_are_rows_of_one_card(newcomer: Person, client: Client) -> None:
    fit = "    model.fit(x, y, epochs=1, verbose=0)"
    newcomer.run(f"from kafka_jupyter import train\n{BUILD}\nfor name in ('one', 'two'):\n  with train(name):\n{fit}")
    assert newcomer.errors == []
    assert newcomer.cards == 1
    assert [entry["state"]["name"] for entry in newcomer.bundles[-1][MIME]["runs"]] == ["one", "two"]
    assert newcomer.bundles[-1]["text/plain"].count("SUCCEEDED") == 2


def task_of(client: Client, name: str) -> Task:
    run = client.attach(name)
    state = client.connection().follower().state(run.id)
    assert state is not None
    return outcome.read_task(client.connection(), state)


def test_kafka_stop_ends_a_run_and_its_ids_are_completed(person: Person, client: Client) -> None:
    person.run(f"%%kafka_train ending --background\n{BUILD}\nrun = {endless()}")
    run = going(client, "ending")
    assert run.id in person.complete("%kafka_stop ")
    assert run.id in person.complete(f"%kafka_attach {run.short}")
    assert run.id not in person.complete("%kafka_stop --")
    person.run("%kafka_stop ending")
    assert f"{run.id}: asked to stop." in person.text
    assert run.wait(60).state == "SUCCEEDED"
    assert 0 < len(run.history["loss"]) < LONG
    person.run("%kafka_stop ending\n%kafka_cancel ending")
    assert person.text.count(f"{run.id} has already SUCCEEDED.") == 2


def test_a_child_that_is_killed_again_and_again_ends_the_cell_with_the_signal_and_the_memory(
    person: Person, client: Client, shared: Scene
) -> None:
    cell = person.start(f"%%kafka_train killed\n{BUILD}\n{endless()}\nprint('not reached')")
    run = going(client, "killed")
    submission = Submission(shared.log, run.id, task_of(client, "killed"))
    for attempt in (1, 2, 3):
        shared.reached(submission, attempt)
        os.kill(shared.child_pid(submission), signal.SIGKILL)
    person.finish(cell)
    (error,) = person.errors
    assert error["ename"] == "RunDead"
    said = error["traceback"][-1]
    assert f"Run {run.id} is DEAD after 3 attempts" in said
    assert "signal 9" in said or "SIGKILL" in said
    assert "MiB resident at the end" in said
    assert "Your weights are as before" in said
    assert "not reached" not in person.text
    assert "DEAD" in person.bundles[-1]["text/plain"]


def test_running_a_cell_again_names_its_earlier_run(person: Person, client: Client) -> None:
    cell = f"%%kafka_train twice --background\n{BUILD}\n{endless()}"
    person.run(cell)
    run = going(client, "twice")
    person.run(cell)
    assert f"{run.id} of this cell is still RUNNING" in person.text
    assert f"%kafka_cancel {run.short}" in person.text
