"""`fit` keeps its meaning when a worker does it: the same capture as in a cell, here as a `with` block in a script."""

from __future__ import annotations

import gc
import math
import pathlib
import platform
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kafka_jupyter
from kafka_jupyter import errors
from kafka_jupyter.capture.session import REMEMBERED, remember
from kafka_jupyter.capture.view import Lines
from kafka_jupyter.client import Client, outcome
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.task import Task
from tests.kafka.conftest import Scene
from tests.support.training import digits, mlp


@pytest.fixture
def client(shared: Scene) -> Iterator[Client]:
    made = Client(shared.settings)
    yield made
    made.close()


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    x, y = digits()
    return x[:512], y[:512]


def weights_differ(before: list[np.ndarray], model: Any) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_fit_returns_a_whole_history_and_the_model_is_trained(shared: Scene, data) -> None:
    x, y = data
    model = mlp()
    before = model.get_weights()
    with kafka_jupyter.train("whole", settings=shared.settings) as session:
        history = model.fit(x, y, epochs=4, validation_split=0.25, verbose=0)
        loss, accuracy = model.evaluate(x, y, verbose=0)
    assert list(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert all(len(values) == 4 for values in history.history.values())
    assert history.epoch == [0, 1, 2, 3]
    assert history.params["epochs"] == 4
    assert history is model.history
    assert history.model is model
    assert weights_differ(before, model)
    assert loss < history.history["loss"][0]
    assert 0 < accuracy <= 1
    assert session.runs[0].history == {name: pytest.approx(values) for name, values in history.history.items()}
    assert int(model.optimizer.iterations.numpy()) == 4 * 12


def test_local_training_goes_on_exactly_where_the_worker_ended(shared: Scene, data) -> None:
    import keras

    x, y = data
    keras.utils.set_random_seed(7)
    here = mlp()
    there = keras.models.clone_model(here)
    there.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    there.set_weights(here.get_weights())
    here.fit(x, y, epochs=2, shuffle=False, verbose=0)
    with kafka_jupyter.train("exact", settings=shared.settings):
        there.fit(x, y, epochs=2, shuffle=False)
    one, two = (model.fit(x, y, epochs=2, shuffle=False, verbose=0).history for model in (here, there))
    assert one == two
    assert not weights_differ(here.get_weights(), there)


def test_a_k_fold_loop_trains_each_fold_by_its_own_run(shared: Scene, data) -> None:
    x, y = data
    scores = []
    with kafka_jupyter.train("fold", settings=shared.settings) as session:
        for fold in range(3):
            held = np.arange(len(x)) % 3 == fold
            model = mlp()
            model.fit(x[~held], y[~held], epochs=6, verbose=0)
            scores.append(model.evaluate(x[held], y[held], verbose=0)[1])
    assert len({run.id for run in session.runs}) == 3
    assert all(run.state == "SUCCEEDED" for run in session.runs)
    assert np.mean(scores) > 0.3, "untrained models guess one in ten"


def test_a_loop_of_fits_keeps_none_of_the_earlier_models_alive(shared: Scene, data) -> None:
    x, y = data
    models = []
    with kafka_jupyter.train("loop", settings=shared.settings) as session:
        for _ in range(3):
            model = mlp()
            model.fit(x, y, epochs=1, verbose=0)
            models.append(weakref.ref(model))
        gc.collect()
        assert [made() is not None for made in models] == [False, False, True]
        assert session.runs[2].result() is model
        rebuilt = session.runs[0].result()
    assert session.runs[0].result() is rebuilt, "the handle keeps the model that it has made"
    assert len(rebuilt.history.epoch) == 1


def test_what_is_remembered_of_earlier_cells_is_bounded() -> None:
    table: dict[tuple[str, int], int] = {}
    for i in range(2 * REMEMBERED):
        remember(table, (f"cell {i}", 0), i)
    remember(table, ("cell 1500", 0), -1)
    remember(table, ("new", 0), 0)
    assert len(table) == REMEMBERED
    assert list(table)[-2:] == [("cell 1500", 0), ("new", 0)]


def test_callbacks_show_their_final_state_and_their_files_lie_at_the_paths(shared: Scene, data, tmp_path, monkeypatch) -> None:
    import keras

    monkeypatch.chdir(tmp_path)
    x, y = data
    model = mlp(optimizer=keras.optimizers.SGD(0.0))  # never learns, so that it stops early
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=2)
    own = keras.callbacks.History()
    with kafka_jupyter.train("files", settings=shared.settings):
        history = model.fit(
            x, y, epochs=20, shuffle=False,
            callbacks=[
                stop, own,
                keras.callbacks.ModelCheckpoint("best.keras"),
                keras.callbacks.ModelCheckpoint(str(tmp_path / "all" / "at-{epoch:02d}.weights.h5"), save_weights_only=True),
                keras.callbacks.CSVLogger("logs/progress.csv"),
            ],
        )  # fmt: skip
    assert stop.stopped_epoch == len(history.epoch) - 1 == 2
    assert stop.wait == 2
    assert stop.best == pytest.approx(min(history.history["loss"]))
    assert history is own
    assert model.stop_training
    assert keras.models.load_model("best.keras").count_params() == model.count_params()
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["at-01.weights.h5", "at-02.weights.h5", "at-03.weights.h5"]
    assert len(pathlib.Path("logs/progress.csv").read_text().splitlines()) == 4
    assert not list(tmp_path.rglob(".*")), "no half-written files are left"


def test_an_exception_in_training_is_raised_here_with_the_remote_traceback(shared: Scene, data, capsys) -> None:
    x, y = data
    model = mlp()
    before = model.get_weights()
    with pytest.raises(errors.RunFailed) as caught, kafka_jupyter.train("bad", settings=shared.settings):
        model.fit(x[:, :10], y, epochs=2)
    assert caught.value.fields["traceback"]
    assert "Your weights are as before" in str(caught.value)
    assert any("On the worker" in note for note in caught.value.__notes__)
    shown = caught.value._render_traceback_()
    assert shown[0].startswith("Traceback")
    assert shown[-1].startswith("RunFailed: Run bad-")
    assert not weights_differ(before, model)
    model.evaluate(x, y, verbose=0)  # not pending: the run is over


def test_what_cannot_travel_is_refused_before_anything_is_sent(shared: Scene, client: Client, data) -> None:
    import keras

    x, y = data
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, activation=lambda z: z * 2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    known = {run.id for run in client.runs()}
    with pytest.raises(errors.CannotTravel), kafka_jupyter.train("lambda", settings=shared.settings):
        model.fit(x, y)
    assert {run.id for run in client.runs()} == known


def test_a_block_without_a_fit_says_so(shared: Scene) -> None:
    with pytest.raises(errors.CaptureError, match="scikit-learn"), kafka_jupyter.train("none", settings=shared.settings):
        pass


def test_fit_outside_of_the_block_and_fits_inside_keras_stay_local(shared: Scene, client: Client, data) -> None:
    x, y = data
    known = {run.id for run in client.runs()}
    mlp().fit(x, y, epochs=1, verbose=0)
    assert {run.id for run in client.runs()} == known


def test_dry_run_sends_nothing(shared: Scene, client: Client, data, capsys) -> None:
    x, y = data
    model = mlp()
    before, known = model.get_weights(), {run.id for run in client.runs()}
    with kafka_jupyter.train("dry", settings=shared.settings, dry_run=True):
        history = model.fit(x, y, epochs=5)
    shown = capsys.readouterr().err
    assert "nothing was sent" in shown
    assert "512 rows" in shown
    assert history.history == {}
    assert {run.id for run in client.runs()} == known
    assert not weights_differ(before, model)


def test_without_the_check_nothing_is_sent_to_compare(shared: Scene, client: Client, data) -> None:
    x, y = data
    asked = {}
    for check in (True, False):
        with kafka_jupyter.train(f"check-{check}", settings=shared.settings, check=check) as session:
            mlp().fit(x, y, epochs=1)
        run_id = session.runs[0].id
        requests = [record for record in shared.log_records(run_id) if isinstance(record, control.SettingsRequested)]
        asked[check] = (sent(client, run_id).model.check_rtol is not None, len(requests))
    assert asked == {True: (True, 1), False: (False, 0)}


def test_the_seed_of_the_person_and_the_versions_of_the_kernel_travel_along(shared: Scene, client: Client, data) -> None:
    import keras
    from keras.src.utils import rng_utils

    x, y = data
    tasks = []
    for seed in (7, 7, 8):
        keras.utils.set_random_seed(seed)
        with kafka_jupyter.train("seeded", settings=shared.settings) as session:
            mlp().fit(x, y, epochs=1)
        tasks.append(sent(client, session.runs[0].id))
    assert [task.seed for task in tasks] == [7, 7, 8]
    assert {"keras": keras.__version__, "python": platform.python_version()}.items() <= tasks[0].versions.items()
    assert keras.config.backend() in tasks[0].versions
    assert (tasks[0].requirements.keras, tasks[0].requirements.backend) == (keras.__version__, keras.config.backend())
    assert rng_utils.get_random_seed() == 8, "capturing draws nothing and resets nothing"


def sent(client: Client, run_id: str) -> Task:
    state = client.connection().catch_up().state(run_id)
    assert state is not None
    return outcome.read_task(client.connection(), state)


def test_attach_adopts_the_run_that_trains_the_same(shared: Scene, data) -> None:
    x, y = data
    runs = []
    for epochs in (2, 2, 3):
        model = mlp()
        before = model.get_weights()
        with kafka_jupyter.train("again", settings=shared.settings, attach=True) as session:
            history = model.fit(x, y, epochs=epochs)
        runs.append(session.runs[0].id)
        assert len(history.history["loss"]) == epochs
        assert weights_differ(before, model)
    assert runs[0] == runs[1] != runs[2]


def test_nan_losses_come_back_as_nan(shared: Scene, data) -> None:
    import keras

    x, y = data
    model = mlp(optimizer=keras.optimizers.SGD(1e30))
    with kafka_jupyter.train("nan", settings=shared.settings, check=False):
        history = model.fit(x, y, epochs=3)
    assert any(math.isnan(value) for value in history.history["loss"])


def test_lines_of_text_say_what_happens_without_a_terminal(shared: Scene, data, capsys) -> None:
    x, y = data
    with kafka_jupyter.train("lines", settings=shared.settings) as session:
        mlp().fit(x, y, epochs=2)
    assert isinstance(session.view, Lines)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0].split(":")[0] for line in shown] == [f"{session.runs[0].id} QUEUED", f"{session.runs[0].id} SUCCEEDED"]
