"""What a run leaves in Kafka is all that anybody needs: fetched in another process, by another client, without the first one's objects."""

from __future__ import annotations

import csv
import json
import pathlib
import socket
from typing import Any

import keras
import numpy as np
import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.settings import Settings
from tests.kafka.conftest import Scene
from tests.support import local
from tests.support.training import Submission, digits, mlp, submit, task_of

EPOCHS = 4
ROWS = 256
FETCH = """
import contextlib, json
import numpy as np
from kafka_jupyter.client import Client
from kafka_jupyter.settings import Settings

run_id, folder = {arguments!r}
with contextlib.closing(Client(Settings.from_env())) as client:
    run = client.attach(run_id).wait(60)
    files = [str(path) for path in run.fetch_files(folder)]
    model = run.result()
    data = np.load({data!r})
    evaluated = model.evaluate(data["x"], data["y"], verbose=0, return_dict=True)
    np.savez({weights!r}, *[np.asarray(v.numpy()) for v in model.variables + model.optimizer.variables])
    print(json.dumps({{
        "state": run.state, "log": run.log, "files": files, "history": run.history, "model_history": model.history.history,
        "evaluated": evaluated, "summary": run.summary(),
    }}))
"""


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Any]:
    """The same training here: the model before it, and as `fit` with these callbacks leaves it."""
    keras.utils.set_random_seed(5)
    before = mlp()
    after = keras.models.clone_model(before)
    after.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    after.set_weights(before.get_weights())
    x, y = digits()
    after.fit(x[:ROWS], y[:ROWS], epochs=EPOCHS, shuffle=False, validation_split=0.25, verbose=0)
    return before, after


@pytest.fixture(scope="module")
def run(shared: Scene, trained: tuple[Any, Any]) -> Submission:
    callbacks = [
        keras.callbacks.ModelCheckpoint("out/best-{epoch:02d}.keras", monitor="val_loss", verbose=1),
        keras.callbacks.CSVLogger("log.csv"),
    ]
    task = task_of(trained[0], "results", ROWS, EPOCHS, shuffle=False, validation_split=0.25, callbacks=callbacks)
    submitted = submit(shared.log, "results", task=task)
    assert shared.ended(submitted).state == "SUCCEEDED"
    return submitted


@pytest.fixture(scope="module")
def fetched(shared: Scene, run: Submission, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What another process, with a cache and a working folder of its own, finds under the run's id."""
    folder = tmp_path_factory.mktemp("elsewhere")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[:ROWS], y=y[:ROWS])
    code = FETCH.format(arguments=[run.run_id, str(folder / "got")], data=str(folder / "data.npz"), weights=str(folder / "weights.npz"))
    found = json.loads(local.run_python(code, environment(shared.settings, folder)).splitlines()[-1])
    found["weights"] = list(np.load(folder / "weights.npz").values())
    found["files"] = {pathlib.Path(path).relative_to(folder / "got").as_posix(): path for path in found["files"]}
    return dict(found)


def environment(settings: Settings, folder: pathlib.Path) -> dict[str, str]:
    return local.environment(
        settings.replace(data_dir=folder / "data", cache_dir=folder / "cache"),
        KAFKA_JUPYTER_BOOTSTRAP_SERVERS=settings.bootstrap_servers,
        KAFKA_JUPYTER_TOPIC_PREFIX=settings.topic_prefix,
        TF_CPP_MIN_LOG_LEVEL="3",
    )


def test_the_result_in_a_new_process_is_the_model_as_fit_here_would_have_left_it(fetched: dict[str, Any], trained: tuple[Any, Any]) -> None:
    _, after = trained
    x, y = digits()
    assert fetched["evaluated"] == after.evaluate(x[:ROWS], y[:ROWS], verbose=0, return_dict=True)
    for here, there in zip([*after.variables, *after.optimizer.variables], fetched["weights"], strict=True):
        np.testing.assert_array_equal(here.numpy(), there)


def test_its_history_is_that_of_the_training(fetched: dict[str, Any], trained: tuple[Any, Any]) -> None:
    assert fetched["history"] == fetched["model_history"] == trained[1].history.history


def test_the_lines_that_the_training_printed_can_be_read_by_anybody(fetched: dict[str, Any]) -> None:
    said = [line.partition(": saving model to ")[0] for line in fetched["log"] if ": saving model to " in line]
    assert said == [f"Epoch {n}" for n in range(1, EPOCHS + 1)]


def test_the_files_of_callbacks_come_whole_to_whoever_asks(fetched: dict[str, Any]) -> None:
    best = [f"out/best-{epoch:02d}.keras" for epoch in range(1, EPOCHS + 1)]
    assert sorted(fetched["files"]) == ["log.csv", *best]
    with open(fetched["files"]["log.csv"], newline="") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == fetched["history"]["loss"]
    last = keras.saving.load_model(fetched["files"][best[-1]])
    for here, there in zip(last.variables, fetched["weights"], strict=False):
        np.testing.assert_array_equal(here.numpy(), there)


def test_started_says_where_and_with_what_it_was_trained(shared: Scene, run: Submission) -> None:
    (started,) = (record for record in shared.records(run) if isinstance(record, control.Started))
    assert started.device == "cpu"
    assert started.host == socket.gethostname()
    assert started.worker.startswith("shared-")
    assert started.versions["keras"] == keras.__version__
    assert started.versions["backend"] == "tensorflow"
    assert {"python", "tensorflow", "numpy"} <= started.versions.keys()
    assert started.pid > 0
