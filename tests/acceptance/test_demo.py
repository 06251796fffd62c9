"""`make demo`: what it shows, what it leaves, and that nothing of it runs on, however it ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import nbformat
import psutil
import pytest

from kafka_jupyter.brokers import local
from kafka_jupyter.client import Client
from kafka_jupyter.settings import APP, Settings
from tests.support.waiting import wait_until
from tests.support.workers import ROOT

pytestmark = pytest.mark.timeout(600)

ENDLESS = """
%load_ext kafka_jupyter
import keras, numpy
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(loss="mse")
with __import__("kafka_jupyter").train("endless"):
    model.fit(numpy.ones((8, 2)), numpy.ones(8), epochs=1_000_000, verbose=0)
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def build(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    folder = tmp_path / "demo"
    yield folder
    local.down(Settings(data_dir=folder / "data"))


@pytest.fixture
def demo(build: pathlib.Path) -> Iterator[Start]:
    """Starts it as a person has it who uses another Kafka: with a profile and variables that the demo must not heed."""
    config = build.parent / "config"
    (config / APP).mkdir(parents=True)
    (config / APP / "profiles.toml").write_text('[default]\nbootstrap_servers = "localhost:1"\ntopic_prefix = "team1."\n')
    env = os.environ | {
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": str(ROOT),
        "XDG_CONFIG_HOME": str(config),
        "KAFKA_JUPYTER_TOPIC_PREFIX": "team2.",
    }
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--build", str(build)]
    pipe = subprocess.PIPE
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen([*command, *words], env=env, text=True, start_new_session=True, stdout=pipe, stderr=pipe))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def written(build: pathlib.Path, *cells: str) -> str:
    """The path of a notebook with these cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    file = build.parent / "other.ipynb"
    nbformat.write(notebook, file)
    return str(file)


def of(build: pathlib.Path) -> list[str]:
    """Command lines of the processes that know this folder: kernel, brokers, worker, forkserver, children."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            places = [process.cwd(), *process.cmdline(), *process.environ().values()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(build) in place for place in places):
                found.append(" ".join(process.cmdline()))
    return found


def test_the_demo_trains_the_quickstart_and_leaves_notebook_and_page_and_no_process(demo: Start, build: pathlib.Path) -> None:
    said, complaints = demo().communicate(timeout=220)
    assert complaints == ""
    last = re.fullmatch(r"run (digits-\w+) SUCCEEDED epochs=(\d+) val_accuracy=(0\.\d{4})", said.splitlines()[-1])
    assert last, said
    run_id, epochs, accuracy = last[1], int(last[2]), last[3]
    rows = [re.findall(r"[\w.]+", line) for line in said.splitlines() if re.match(r"\W*\d+ +\W +0\.\d{4}", line)]
    assert [int(row[0]) for row in rows] == list(range(1, epochs + 1)), said
    assert accuracy in rows[-1]

    cells = {cell["id"]: cell for cell in nbformat.read(build / "01_quickstart.ipynb", as_version=4).cells}
    (card,) = [output["data"]["text/plain"] for output in cells["train"]["outputs"] if output["output_type"] == "display_data"]
    assert run_id.rpartition("-")[2][:4] in card
    assert "  SUCCEEDED  " in card
    assert cells["evaluate"]["outputs"][0]["text"].startswith(f"{epochs} epochs, test accuracy 0.")
    page = (build / "01_quickstart.html").read_text("utf-8")
    assert cells["evaluate"]["outputs"][0]["text"].strip() in page
    assert of(build) == []


def test_a_failing_cell_is_the_demos_error_and_the_notebook_is_there_to_look_at(demo: Start, build: pathlib.Path) -> None:
    running = demo(written(build, "print('before')", "1 / 0", "print('after')"))
    _, complaints = running.communicate(timeout=120)
    assert running.returncode == 1
    assert re.sub(r"\x1b\[[\d;]*m", "", complaints).rstrip().endswith("ZeroDivisionError: division by zero")
    before, failed, after = nbformat.read(build / "other.ipynb", as_version=4).cells
    assert (before["outputs"][0]["text"], failed["outputs"][0]["ename"], after["outputs"]) == ("before\n", "ZeroDivisionError", [])
    assert "division by zero" in (build / "other.html").read_text("utf-8")
    assert of(build) == []


def told(running: subprocess.Popen[str], within_s: float = 60.0) -> tuple[str, str]:
    """Its stdout and stderr. One that does not end says where its threads stand."""
    try:
        return running.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGABRT)
        pytest.fail("it does not end:\n" + running.communicate(timeout=10)[1])


def test_ctrl_c_ends_everything_within_seconds(demo: Start, build: pathlib.Path) -> None:
    running = demo(written(build, ENDLESS))
    settings = Settings(data_dir=build / "data", cache_dir=build.parent / "cache")
    wait_until(lambda: local.endpoint(settings) or running.poll(), "no Kafka came up", within=60)
    with contextlib.closing(Client(settings)) as client:
        wait_until(lambda: [run for run in client.runs() if run.history] or running.poll(), "nothing was trained", within=90)
    assert any("ipykernel" in command for command in of(build))
    assert any("kafka.Kafka" in command for command in of(build))
    assert any("worker" in command for command in of(build))
    os.killpg(running.pid, signal.SIGINT)
    pressed = time.monotonic()
    _, complaints = told(running)
    took_s = time.monotonic() - pressed
    assert (running.returncode, complaints) == (130, "interrupted: what was started is stopped\n")
    assert took_s < 5, f"{took_s:.1f} s: the kernel was waited for"
    wait_until(lambda: not of(build), "something lives on")
