"""Cells with code of their own, in a real kernel and on a real worker: each once as it stands, and once with `%%kafka_train` on top."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Iterator

import pytest

from kafka_jupyter.settings import Settings
from tests.capture import own_code
from tests.kafka.conftest import scene
from tests.support.notebooks import Ran, run_notebook
from tests.support.scene import Scene

SEEDED = "import keras\nkeras.utils.set_random_seed(7)\n"
REST = "\nrest = {'epochs': 2, **given, 'shuffle': False, 'verbose': 0}\n"
SAME = """from kafka_jupyter.models import state
print(mine == theirs, state.dump(here) == state.dump(there), len(mine))"""


@pytest.fixture(scope="module")
def trusting(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(module_settings, tmp_path_factory.mktemp("workers"), {"KAFKA_JUPYTER_ALLOW_CODE": "1"}) as made:
        made.workers.start("trusting")
        yield made


@pytest.fixture(scope="module")
def ran(trusting: Scene, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    folder: pathlib.Path = tmp_path_factory.mktemp("kernel")
    env = trusting.workers.environment(folder) | {"KAFKA_JUPYTER_OWNER": "ada@test", "IPYTHONDIR": str(folder / "ipython")}
    cells = {"begin": "%load_ext kafka_jupyter"}
    for name, text in own_code.CELLS.items():
        cell = SEEDED + own_code.BEGIN + textwrap.dedent(text) + REST
        cells[f"{name}, here"] = f"{cell}here, mine = model, model.fit(**rest).history"
        cells[f"{name}, there"] = f"%%kafka_train own --trust code\n{cell}there, theirs = model, model.fit(**rest).history"
        cells[name] = SAME
    return run_notebook(cells, folder, env)


@pytest.mark.parametrize("name", own_code.CELLS)
def test_a_notebook_gets_what_it_would_have_trained_itself(ran: dict[str, Ran], name: str) -> None:
    for cell in (f"{name}, here", f"{name}, there", name):
        assert ran[cell].error is None, (cell, ran[cell].error["evalue"], ran[cell].error["traceback"][-3:])
    assert len(ran[f"{name}, there"].runs) == 1, "it was not trained on the worker"
    same_history, same_state, metrics = ran[name].text.split()
    assert (same_history, same_state) == ("True", "True")
    assert int(metrics) >= 1
    assert "runs your code" in ran[f"{name}, there"].cards[0]["text/html"]


def test_how_many_there_are(ran: dict[str, Ran], capsys: pytest.CaptureFixture[str]) -> None:
    equal = sum(ran[name].text.startswith("True True") for name in own_code.CELLS)
    assert equal == len(own_code.CELLS) >= 12
    with capsys.disabled():
        print(f"\ncells with code of their own: {equal} of {len(own_code.CELLS)} give on a worker what they give here, to the last bit")
