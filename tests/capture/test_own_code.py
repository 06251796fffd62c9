"""`--trust code`: what people write themselves trains elsewhere exactly as it would here."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import pytest

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import callbacks, state
from kafka_jupyter.models.capture import capture_fit
from kafka_jupyter.models.usercode import Included
from tests.capture import own_code
from tests.capture.test_models_exact import assert_same_state


@pytest.mark.parametrize("name", own_code.CELLS)
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


@pytest.mark.parametrize("name", own_code.CELLS)
def test_without_trust_it_is_refused_by_name_and_says_how_it_may_travel(name: str) -> None:
    cell = own_code.run(name)
    with pytest.raises(CannotTravel, match=r"--trust code|its batches are made by code that runs here"):
        capture_fit(cell["model"], (), cell["given"])
