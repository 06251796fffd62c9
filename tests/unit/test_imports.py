"""What is loaded when: a kernel, a server and a shell must not wait for what they may never use."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
KERAS = ("keras", "tensorflow", "torch", "jax")
WITHOUT_KERAS = [
    "kafka_jupyter.cli.app",
    "kafka_jupyter.cli.run_commands",
    "kafka_jupyter.cli.kafka_commands",
    "kafka_jupyter.cli.doctor",
    "kafka_jupyter.server.app",
    "kafka_jupyter.server.manager",
    "kafka_jupyter.server.session",
    "kafka_jupyter.worker.supervisor",
    "kafka_jupyter.client",
    "kafka_jupyter.capture.block",
    "kafka_jupyter.store",
    "kafka_jupyter.notebook.extension",
    "kafka_jupyter.notebook.live",
    "kafka_jupyter.models.allowlist",
    "kafka_jupyter.outputs.finish",
]
# A finder before all others: whoever looks for one of these packages fails as on a machine without it.
_BLOCKED = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by this test)", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_loads_neither_a_kafka_client_nor_widgets_nor_keras() -> None:
    heavy = ["confluent_kafka", "ipywidgets", "anywidget", "IPython", "numpy", "msgspec", "typer", "tornado", *KERAS]
    loaded = run(f"import sys, kafka_jupyter\nprint([name for name in {heavy!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_loading_the_magics_loads_neither_a_kafka_client_nor_widgets_nor_keras() -> None:
    heavy = ["confluent_kafka", "ipywidgets", "anywidget", *KERAS]
    code = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "InteractiveShell.instance().run_line_magic('load_ext', 'kafka_jupyter')\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_server_command_line_and_supervisor_run_on_a_machine_without_keras() -> None:
    run(_BLOCKED.format(names=set(KERAS)) + "\n".join(f"import {module}" for module in WITHOUT_KERAS))


@pytest.mark.parametrize("command", [["--help"], ["worker", "--help"], ["runs", "--help"]])
def test_the_command_line_answers_without_keras(command: list[str]) -> None:
    code = _BLOCKED.format(names=set(KERAS)) + f"sys.argv = ['kafka-jupyter', *{command!r}]\nfrom kafka_jupyter.cli import main\nmain()"
    assert "Usage: kafka-jupyter" in run(code)
