"""`--trust code`: what people write themselves trains elsewhere exactly as it would here."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import Any

import keras
import pytest

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import byvalue, callbacks, state
from kafka_jupyter.models.capture import capture_fit
from kafka_jupyter.models.likeness import Likeness
from kafka_jupyter.models.usercode import Included
from tests.capture import own_code
from tests.capture.test_models_exact import assert_same_state

LIVE = "a generator that is alive"


@pytest.mark.parametrize("name", [name for name in own_code.CELLS if name != LIVE])
def test_a_cell_with_code_of_its_own_trains_elsewhere_exactly_as_it_would_here(name: str, child: Any, tmp_path: pathlib.Path) -> None:
    keras.utils.set_random_seed(7)
    cell = own_code.run(name)
    model, given = cell["model"], {"epochs": 2, **cell["given"], "shuffle": False}
    for round_ in ("fresh", "warm"):  # the second fit goes on with a warm optimizer
        captured = capture_fit(model, (), given, trusted=Included())
        assert captured.code is not None
        there = child.train(captured, tmp_path / round_)
        model.fit(**{"verbose": 0, **given})
        assert there.outcome()["history"] == callbacks.final_state([model.history])[0]["history"]
        assert_same_state(state.dump(model), there.state().read_bytes())


DIGESTS = """
import json, sys
import keras
from kafka_jupyter.models.capture import capture_fit
from kafka_jupyter.models.likeness import Likeness
from kafka_jupyter.models.usercode import Included
from tests.capture import own_code
digests = {}
for name in own_code.CELLS:
    cell = own_code.run(name)
    digests[name] = capture_fit(cell["model"], (), {"epochs": 2, **cell["given"]}, trusted=Included()).digest([])
print(json.dumps(digests))
"""


def digest_of(cell: dict[str, Any]) -> str:
    return capture_fit(cell["model"], (), {"epochs": 2, **cell["given"]}, trusted=Included()).digest([])


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    """The digests of all cells in another process, whose strings have other hashes."""
    env = os.environ | {"PYTHONHASHSEED": "77", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", DIGESTS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", own_code.CELLS)
def test_the_same_cell_has_the_same_digest_when_it_runs_again_here_or_in_another_kernel(name: str, elsewhere: dict[str, str]) -> None:
    first, again = digest_of(own_code.run(name)), digest_of(own_code.run(name))
    assert first == again == elsewhere[name]


def test_a_model_that_came_by_value_can_say_its_graph_and_knows_what_it_tracks() -> None:
    """A ModelCheckpoint in the child writes the first down; without the second a variable that is set again would count twice."""
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(4)(inputs)))
    there = byvalue.load(byvalue.dump({"model": model}))["model"]
    assert json.dumps(there.get_config()) == json.dumps(model.get_config())
    layer = there.layers[-1]
    layer.kernel_again = layer._kernel
    assert len(layer.variables) == len(model.layers[-1].variables)


def test_seeds_that_were_drawn_by_chance_are_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """As initial weights are none: a kernel that nobody has seeded draws others."""
    text = textwrap.dedent(own_code.CELLS["a layer that nobody can write down"])
    found = set()
    for seed in (1, 2):
        monkeypatch.setitem(own_code.CELLS, "seeded", f"keras.utils.set_random_seed({seed})\n{text}")
        found.add(digest_of(own_code.run("seeded")))
    monkeypatch.setattr(Likeness, "_drawn", lambda *_: None)
    found.add(digest_of(own_code.run("seeded")))
    assert len(found) == 2, "one without those seeds, one with them"


def test_another_function_number_or_seed_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    text = own_code.CELLS["a layer that nobody can write down"]
    found = []
    for change in (("", ""), ("relu", "tanh"), ("1.5", "1.25"), ("Dropout(0.3)", "Dropout(0.3, seed=5)"), (", 8)", ", 9)")):
        assert change[0] in text
        monkeypatch.setitem(own_code.CELLS, "changed", text.replace(*change))
        found.append(digest_of(own_code.run("changed")))
    assert len(set(found)) == len(found)


def test_of_a_live_generator_the_training_gets_the_batches_that_it_would_have_taken(child: Any, tmp_path: pathlib.Path) -> None:
    def cell() -> tuple[Any, dict[str, Any]]:
        keras.utils.set_random_seed(7)
        names = own_code.run(LIVE)
        return names["model"], {"epochs": 2, **names["given"], "shuffle": False}

    (here, given), (model, same) = cell(), cell()
    there = child.train(capture_fit(model, (), same, trusted=Included()), tmp_path)
    here.fit(**{"verbose": 0, **given})
    assert there.outcome()["history"] == callbacks.final_state([here.history])[0]["history"]
    assert_same_state(state.dump(here), there.state().read_bytes())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"epochs": 2}, "used up after one of 2 epochs. Give steps_per_epoch"),
        ({"x": (i for i in range(3))}, "it gives a int"),
        ({"x": (i for i in ())}, "it has no batches"),
    ],
)
def test_a_generator_that_cannot_be_read_says_why(given: dict[str, Any], why: str) -> None:
    names = own_code.run(LIVE)
    with pytest.raises(CannotTravel, match=why):
        capture_fit(names["model"], (), {"x": names["given"]["x"], **given}, trusted=Included())


@pytest.mark.parametrize("name", own_code.CELLS)
def test_without_trust_it_is_refused_by_name_and_says_how_it_may_travel(name: str) -> None:
    cell = own_code.run(name)
    with pytest.raises(CannotTravel, match=r"--trust code|its batches are made by code that runs here"):
        capture_fit(cell["model"], (), cell["given"])
