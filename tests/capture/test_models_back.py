"""The way back: weights and optimizer into the person's model, and the refusals that leave it as it was."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from kafka_jupyter.errors import DoesNotFit, StoreError
from kafka_jupyter.models import state
from kafka_jupyter.models.capture import capture_fit
from tests.capture import cases

BACK = ["sequential", "unbuilt_sequential", "adapted_normalization", "stateful_recurrent", "mixed_float16_everywhere", "bfloat16_variables"]


@pytest.mark.parametrize("name", BACK)
def test_a_local_fit_after_the_result_came_back_goes_on_exactly(name: str, twin: Any, tmp_path: pathlib.Path) -> None:
    keras.utils.set_random_seed(3)
    mine, given = cases.CASES[name]()
    given = {"epochs": 1, **given, "shuffle": False}
    captured = capture_fit(mine, (), given)
    answer = twin.train(captured, tmp_path / "away")
    keras.utils.set_random_seed(3)
    stayed, _ = cases.CASES[name]()
    if not stayed.built:
        capture_fit(stayed, (), given)  # built as `fit` builds it
    state.load_into(stayed, None, write(captured.state, tmp_path / "start"))
    stayed.fit(**given, verbose=0)
    state.load_into(mine, captured.optimizer, answer.state())
    assert state.dump(mine) == state.dump(stayed)
    assert mine.fit(**given, verbose=0).history == stayed.fit(**given, verbose=0).history
    assert state.dump(mine) == state.dump(stayed)


def write(content: bytes, path: pathlib.Path) -> pathlib.Path:
    path.write_bytes(content)
    return path


def trained(**layers: Any) -> keras.Model:
    model = cases.classified(cases.mlp(**layers))
    model.fit(**cases.classes(), verbose=0)
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_does_not_fit_is_refused_before_anything_is_assigned(optimizer: str, tmp_path: pathlib.Path) -> None:
    file = write(state.dump(trained(width=9)), tmp_path / "state")
    mine = trained()
    before = state.dump(mine)
    with pytest.raises(DoesNotFit, match=r"kernel is float32\[6, 8\], in the result float32\[6, 9\].*Nothing was assigned"):
        state.load_into(mine, mine.optimizer, file, run_id="digits-1")
    other = keras.optimizers.get(optimizer)
    other.build(mine.trainable_variables[:2])
    with pytest.raises(DoesNotFit, match="optimizer"):
        state.load_into(mine, other, write(before, file))
    assert state.dump(mine) == before


def test_a_result_with_another_number_of_variables_is_refused(tmp_path: pathlib.Path) -> None:
    file = write(state.dump(trained()), tmp_path / "state")
    mine = cases.classified(cases.mlp(keras.layers.Dense(8)))
    with pytest.raises(DoesNotFit, match="has 6 variables, the result 4"):
        state.load_into(mine, None, file)


def test_weights_alone_leave_the_optimizer_of_a_recompiled_model_alone(tmp_path: pathlib.Path) -> None:
    file = write(state.dump(trained()), tmp_path / "state")
    mine = cases.classified(cases.mlp(), "sgd")
    state.load_into(mine, None, file)
    assert not mine.optimizer.built


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"{" * 16])
def test_bytes_that_are_no_state_are_one_clear_error(content: bytes, tmp_path: pathlib.Path) -> None:
    with pytest.raises(StoreError, match="not the state of a model"):
        state.load_into(trained(), None, write(content, tmp_path / "state"))


def test_a_damaged_state_never_changes_the_model(tmp_path: pathlib.Path) -> None:
    mine = trained()
    before = state.dump(mine)
    for cut in (9, 200, len(before) - 3):
        with pytest.raises((StoreError, DoesNotFit)):
            state.load_into(mine, mine.optimizer, write(before[:cut], tmp_path / "state"))
    assert np.array_equal(np.frombuffer(state.dump(mine)[-16:], "u1"), np.frombuffer(before[-16:], "u1"))
    assert state.dump(mine) == before
