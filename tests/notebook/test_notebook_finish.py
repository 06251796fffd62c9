"""A real notebook whose kernel is shut down while its run goes on: the command line finishes it, and changes nothing else."""

from __future__ import annotations

import contextlib
import copy
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat.sign import NotebookNotary

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.outputs.bundle import MIME, WIDGET_VIEW
from kafka_jupyter.settings import Settings
from tests.support.cli import environment
from tests.support.local import environment as child_environment
from tests.support.playing import Player
from tests.support.saved import WIDGET_STATE

CELLS = [
    "%load_ext kafka_jupyter",
    "print('é')",
    "run = %kafka_attach digits",
    "import ipywidgets\nipywidgets.IntSlider(7)",
    "from IPython.display import HTML\nHTML('<b>another output</b>')",
]
CARD, SLIDER = 2, 3

pytestmark = pytest.mark.filterwarnings("ignore:The default datetime adapter:DeprecationWarning")  # nbformat on Python 3.12


@pytest.fixture
def player(settings: Settings) -> Iterator[Player]:
    """A run of which two epochs of three are done."""
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        made = Player.new(log)
        made.submit()
        made.claim()
        made.start()
        made.epoch(0)
        made.epoch(1)
        yield made


def executed(env: dict[str, str], folder: pathlib.Path) -> nbformat.NotebookNode:
    """By a person, who sees a live card. Then the kernel is shut down."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    client = NotebookClient(notebook, timeout=60, store_widget_state=True, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel(env=env):
        client.kc.allow_stdin = True
        for i, cell in enumerate(notebook.cells):
            client.execute_cell(cell, i)
        client.set_widgets_metadata()
    return notebook


@contextlib.contextmanager
def signatures(folder: pathlib.Path) -> Iterator[NotebookNotary]:
    """Jupyter's own, of this data folder."""
    folder.mkdir(exist_ok=True)
    notary = NotebookNotary(data_dir=str(folder))
    with contextlib.closing(notary.store):
        yield notary


def test_a_notebook_is_finished_after_its_kernel_has_gone(settings: Settings, player: Player, tmp_path: pathlib.Path) -> None:
    env = child_environment(settings) | environment(settings) | {"JUPYTER_DATA_DIR": str(tmp_path / "jupyter")}
    before = executed(env | {"IPYTHONDIR": str(tmp_path / "ipython")}, tmp_path)
    saved = before.cells[CARD].outputs[0]
    assert WIDGET_VIEW in saved.data
    assert "RUNNING" in saved.data["text/plain"]
    path = tmp_path / "digits.ipynb"
    nbformat.write(before, path)
    with signatures(tmp_path / "jupyter") as notary:
        notary.sign(nbformat.read(path, as_version=4))
    player.epoch(2)
    player.succeed()

    command = [sys.executable, "-m", "kafka_jupyter.cli", "notebook", "finish", str(path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: cell {CARD + 1}, output 1: finished: {player.run_id} SUCCEEDED\n"

    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    data = after.cells[CARD].outputs[0].data
    assert set(data) == {MIME, "text/html", "text/plain"}
    assert re.match(r"digits \w{4}  SUCCEEDED  3 epochs in \d+:\d\d  loss 0.3333 @3", data["text/plain"])
    models = after.metadata.widgets[WIDGET_STATE].state
    assert after.cells[SLIDER].outputs[0].data[WIDGET_VIEW].model_id in models
    assert saved.data[WIDGET_VIEW].model_id not in models
    assert not any("_anywidget_id" in model["state"] for model in models.values())

    expected = copy.deepcopy(before)
    expected.cells[CARD].outputs[0].data = data
    expected.metadata.widgets[WIDGET_STATE].state = models
    assert path.read_text("utf-8") == nbformat.writes(expected) + "\n", "as Jupyter would have written it: nothing else has changed"
    with signatures(tmp_path / "jupyter") as notary:
        assert notary.check_signature(after), "trusted as before"

    page, _ = HTMLExporter(template_name="basic").from_notebook_node(nbformat.v4.new_notebook(cells=[after.cells[CARD]]))
    assert "<script" not in page
    assert "SUCCEEDED" in page
    assert "<table" in page
