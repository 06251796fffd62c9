"""Whether a model arrived as it was: both losses are computed from what is really there, in the notebook and in the worker's child."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import msgspec
import pytest
import safetensors.numpy

from kafka_jupyter import errors
from kafka_jupyter.capture.check import check
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.models import capture
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import InlineBytes
from kafka_jupyter.protocol.task import Task
from tests.kafka.conftest import Scene
from tests.support.training import digits, mlp, task_of
from tests.support.waiting import wait_until

LONG = 100_000  # epochs that nobody waits for
ROWS = 64


@pytest.fixture
def client(shared: Scene) -> Iterator[Client]:
    made = Client(shared.settings)
    yield made
    for run in made.runs(owner=shared.settings.owner):
        run.cancel()
    made.close()


def checked(client: Client, model: Any, task: Task) -> tuple[TrainingRun, float]:
    """The run of `task`, for which the notebook has sent the loss of `model`; and that loss."""
    x, y = digits()
    run = client.submit(task)
    check(client, run.id, capture.capture_fit(model, (x[:ROWS], y[:ROWS]), {"epochs": LONG}))

    def asked() -> Any:
        state = client.connection().follower().state(run.id)
        return state.settings if state is not None else ()

    (request,) = wait_until(asked, "the loss was never sent")
    return run, request.settings["check_loss"]


def altered(task: Task, key: str, by: float) -> Task:
    """The task with one number of its state changed, as a bug on the way would do it."""
    assert isinstance(task.model.state, InlineBytes)
    tensors = safetensors.numpy.load(task.model.state.data)
    tensors[key] = tensors[key].copy()
    tensors[key].flat[0] += by
    state = safetensors.numpy.save(tensors, header(task.model.state.data))
    return msgspec.structs.replace(task, model=msgspec.structs.replace(task.model, state=InlineBytes(state)))


def header(state: bytes) -> dict[str, str]:
    length = int.from_bytes(state[:8], "little")
    return dict(msgspec.json.decode(state[8 : 8 + length])["__metadata__"])


@pytest.mark.parametrize("key", ["model/1", "model/3"])  # biases: the first pixel is 0 in every digit
def test_one_altered_weight_ends_the_run_with_both_losses(shared: Scene, client: Client, key: str) -> None:
    model = mlp()
    task = altered(task_of(model, "altered", ROWS, LONG), key, 30.0)
    run, here = checked(client, model, task)
    with pytest.raises(errors.ModelMismatch, match="The model did not arrive as it was") as raised:
        run.wait(90)
    assert run.state == "FAILED"
    (failed,) = (record for record in shared.log_records(run.id) if isinstance(record, control.Failed))
    assert failed.fields["kernel"] == here
    assert failed.fields["worker_loss"] != pytest.approx(here, rel=1e-3)
    for loss in failed.fields.values():
        assert f"{loss:.6g}" in str(raised.value)


@pytest.mark.parametrize("policy", ["float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_a_model_that_arrived_as_it_was_passes_in_every_precision(shared: Scene, client: Client, policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = mlp()
        task = task_of(model, policy.replace("_", "-"), ROWS, LONG)
        run, here = checked(client, model, task)
    finally:
        keras.config.set_dtype_policy(before)

    def answers() -> list[float]:
        return [r.settings["worker_loss"] for r in shared.log_records(run.id) if isinstance(r, control.Applied)]

    (there,) = wait_until(answers, f"the loss was never compared: {run.summary()}", within=60)
    assert there == pytest.approx(here, rel=1e-3)
    run.stop()
    assert run.wait(60).state == "SUCCEEDED"
