"""The card where Python runs: in a kernel that a page watches, in a headless one, in a terminal, in a script."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from kafka_jupyter.notebook.widget import HISTORY, RunWidget
from kafka_jupyter.outputs.bundle import MIME, WIDGET_VIEW

STORY = """
from kafka_jupyter.notebook.card import Card

def state(word, **fields):
    return {"v": 1, "run_id": "digits-3f2a9c01b7d4", "short": "3f2a", "name": "digits", "state": word, "epochs": 2, "attempt": 1,
            "terminal": word == "SUCCEEDED", "upto": 1, **fields}

rows = {"digits-3f2a9c01b7d4": []}
card = Card(live=%s)
card.show([state("QUEUED")], rows)
for i in range(2):
    rows["digits-3f2a9c01b7d4"].append({"type": "epoch", "attempt": 1, "seq": i, "epoch": i, "metrics": {"loss": 1 / (i + 1)}})
    card.update([state("RUNNING")], lambda: rows)
"""
FINISH = 'card.finish([state("SUCCEEDED", epochs_done=2, started_ms=1000, ended_ms=4000)], rows)\n'
DONE = "digits 3f2a  SUCCEEDED  2 epochs in 0:03  loss 0.5000 @2"


@pytest.fixture(autouse=True)
def own_jupyter_folders(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def executed(code: str) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    return NotebookClient(notebook, timeout=60, kernel_name="python3", store_widget_state=True).execute()


@pytest.mark.parametrize("live", [True, False])
def test_a_notebook_that_ran_headless_holds_the_final_static_card(live: bool) -> None:
    notebook = executed(STORY % live + FINISH)
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {MIME, "text/html", "text/plain"}
    assert output.data["text/plain"] == DONE
    assert "SUCCEEDED" in output.data["text/html"]
    assert [row["epoch"] for row in output.data[MIME]["runs"][0]["rows"]] == [0, 1]


def test_while_it_runs_the_output_carries_the_widget_too() -> None:
    notebook = executed(STORY % True)
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {MIME, WIDGET_VIEW, "text/html", "text/plain"}
    assert "RUNNING" in output.data["text/plain"]
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    widget = models[output.data[WIDGET_VIEW]["model_id"]]["state"]
    assert [row["epoch"] for row in widget["tail"]] == [0, 1] or [row["epoch"] for row in widget["tail"]] == [0]
    assert widget["waiting"] is True


def run_python(*arguments: str, home: pathlib.Path) -> str:
    environment = {**os.environ, "HOME": str(home), "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, env=environment, check=True)
    return done.stdout


def test_a_script_prints_one_line_at_the_end(tmp_path: pathlib.Path) -> None:
    assert run_python("-c", STORY % True + FINISH, home=tmp_path) == DONE + "\n"


def test_a_terminal_gets_a_line_when_it_begins_and_one_when_it_ends(tmp_path: pathlib.Path) -> None:
    story = tmp_path / "story.ipy"
    story.write_text(STORY % True + FINISH)
    out = run_python("-m", "IPython", "--no-banner", "--colors=NoColor", str(story), home=tmp_path)
    assert out.splitlines() == ["digits 3f2a  QUEUED  waiting for a worker", DONE]


def state(word: str = "RUNNING", run: str = "digits-3f2a9c01b7d4") -> dict[str, Any]:
    return {"run_id": run, "short": "3f2a", "name": "digits", "state": word, "epochs": 20}


def epochs(count: int, attempt: int = 1) -> list[dict[str, Any]]:
    return [{"type": "epoch", "attempt": attempt, "seq": i, "epoch": i, "metrics": {"loss": 1.0}} for i in range(count)]


def test_the_widget_gets_the_whole_history_however_it_grows() -> None:
    widget = RunWidget()
    for count in (0, 3, 40, 60, 61, 5000, 5001):
        widget.feed([state()], {"digits-3f2a9c01b7d4": epochs(count)})
        sent = {row["seq"] for row in widget.rows + widget.tail}
        assert sent == set(range(count)) or len(sent) >= HISTORY
        assert not count or count - 1 in sent
    widget.close()


def test_rows_that_were_taken_back_leave_the_widget() -> None:
    widget = RunWidget()
    widget.feed([state()], {"digits-3f2a9c01b7d4": epochs(80)})
    widget.feed([state()], {"digits-3f2a9c01b7d4": epochs(2, attempt=2)})
    assert {(row["attempt"], row["seq"]) for row in widget.rows + widget.tail} == {(2, 0), (2, 1)}
    widget.close()


def test_the_widget_sends_the_newest_batch_only() -> None:
    batches = [{"type": "batch", "attempt": 1, "seq": 100 + i, "epoch": 3, "step": i, "metrics": {}} for i in range(10)]
    widget = RunWidget()
    widget.feed([state()], {"digits-3f2a9c01b7d4": epochs(3) + batches})
    assert [row["seq"] for row in widget.tail if row["type"] == "batch"] == [109]
    widget.close()


def test_a_button_of_the_widget_names_a_run_of_this_card_and_a_known_wish() -> None:
    wishes: list[tuple[str, str]] = []
    widget = RunWidget(on_action=lambda run_id, action: wishes.append((run_id, action)))
    widget.feed([state()], {})
    for content in (
        {"action": "stop", "run_id": "digits-3f2a9c01b7d4"},
        {"action": "erase", "run_id": "digits-3f2a9c01b7d4"},
        {"action": "stop", "run_id": "another-000000000000"},
        "stop",
        None,
    ):
        widget._handle_custom_msg(content, [])
    assert wishes == [("digits-3f2a9c01b7d4", "stop")]
    widget.close()
