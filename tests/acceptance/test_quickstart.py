"""The quickstart runs unchanged under papermill (which is nbclient) and nbval, and what they leave needs no server and no kernel."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from typing import Any

import nbformat
import pytest

from kafka_jupyter.client import Client
from tests.support.notebooks import MIME
from tests.support.scene import Scene
from tests.support.workers import ROOT

QUICKSTART = ROOT / "notebooks" / "01_quickstart.ipynb"
VIEW = "application/vnd.jupyter.widget-view+json"
ENDS = {"train": "SUCCEEDED", "wide": "SUCCEEDED", "endless": "CANCELLED", "attach": "SUCCEEDED"}  # cell → how its run ended

pytestmark = pytest.mark.timeout(600)


def run(command: list[str], cwd: pathlib.Path, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def executed(shared: Scene, kernel_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The cells that papermill left, by id."""
    folder = tmp_path_factory.mktemp("papermill")
    run(["papermill", "--no-progress-bar", str(QUICKSTART), "out.ipynb", "--cwd", str(folder)], folder, kernel_env)
    notebook = nbformat.read(folder / "out.ipynb", as_version=4)
    nbformat.validate(notebook)
    return {cell["id"]: cell for cell in notebook.cells}


def test_papermill_trains_all_runs(shared: Scene, executed: dict[str, Any]) -> None:
    for name, end in ENDS.items():
        (card,) = cards(executed[name])
        assert f"  {end}  " in card["text/plain"], name
    assert re.fullmatch(r"\d+ epochs, test accuracy 0\.[89]\d\d\n", printed(executed["evaluate"]))
    assert printed(executed["cancelled"]).startswith("Run endless-")
    assert printed(executed["result"]).startswith("True\n")
    client = Client(shared.settings)
    assert {run.name: run.state for run in client.runs()} == {"digits": "SUCCEEDED", "wide": "SUCCEEDED", "endless": "CANCELLED"}
    client.close()


def test_what_it_leaves_is_static_html_and_no_widget(executed: dict[str, Any]) -> None:
    for cell in executed.values():
        for output in cell.get("outputs", []):
            assert VIEW not in output.get("data", {}), cell["id"]
    for name, end in ENDS.items():
        (card,) = cards(executed[name])
        assert set(card) == {MIME, "text/html", "text/plain"}
        assert "<table" in card["text/html"] or end == "CANCELLED", "its metrics"
        assert "<script" not in card["text/html"]


def test_nbval_runs_it_as_it_is(shared: Scene, executed: dict[str, Any], kernel_env: dict[str, str]) -> None:
    before = QUICKSTART.read_bytes()
    command = ["pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "-q", str(QUICKSTART.relative_to(ROOT))]
    assert " passed" in run(command, ROOT, kernel_env)
    assert before == QUICKSTART.read_bytes()


def cards(cell: Any) -> list[dict[str, Any]]:
    return [output["data"] for output in cell["outputs"] if MIME in output.get("data", {})]


def printed(cell: Any) -> str:
    return "".join(output["text"] for output in cell["outputs"] if output["output_type"] == "stream")
