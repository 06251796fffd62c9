"""Callbacks run elsewhere as they would here, their files come back, and the objects here show how they ended."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import callbacks, state
from kafka_jupyter.models.capture import capture_fit
from kafka_jupyter.protocol.task import CallbackSpec
from tests.capture import cases


def arguments(*made: Any, **more: Any) -> dict[str, Any]:
    return cases.classes(callbacks=list(made), validation_split=0.3, epochs=6, shuffle=False, **more)


def test_callbacks_decide_elsewhere_as_they_do_here(twin: Any, tmp_path: pathlib.Path) -> None:
    def make() -> list[Any]:
        return [
            keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, min_delta=0.05, restore_best_weights=True, mode="min"),
            keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1, cooldown=1, min_lr=1e-6),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.History(),
        ]

    keras.utils.set_random_seed(1)
    model = cases.classified(cases.mlp(), keras.optimizers.Adam(0.1))
    away, here = make(), make()
    answer = twin.train(capture_fit(model, (), arguments(*away)), tmp_path / "away")
    history = model.fit(**arguments(*here), verbose=0).history
    outcome = answer.outcome()
    assert outcome["history"] == history
    callbacks.restore_final_state(away, outcome["callbacks"])
    for name in ("wait", "stopped_epoch", "best", "best_epoch"):
        assert getattr(away[0], name) == getattr(here[0], name), name
    assert (away[1].best, away[1].wait, away[1].cooldown_counter) == (here[1].best, here[1].wait, here[1].cooldown_counter)
    assert away[3].history == history
    assert away[3].epoch == here[3].epoch
    assert state.dump(model) == answer.state().read_bytes()  # the best weights, not the last ones
    model.fit(**arguments(*away), verbose=0)  # they can be used again


def test_the_files_of_callbacks_come_back_under_the_paths_given(twin: Any, tmp_path: pathlib.Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    log = here / "log.csv"
    log.write_text("epoch,accuracy,loss,val_accuracy,val_loss\n0,0,0,0,0\n")
    made = [
        keras.callbacks.ModelCheckpoint(here / "best.keras", save_best_only=True, monitor="val_loss"),
        keras.callbacks.ModelCheckpoint(str(here / "all" / "{epoch:02d}-{val_loss:.2f}.weights.h5"), save_weights_only=True),
        keras.callbacks.CSVLogger(str(log), separator=",", append=True),
        keras.callbacks.TensorBoard(str(here / "logs"), write_graph=False, update_freq="batch"),
        keras.callbacks.BackupAndRestore(str(here / "backup")),
    ]
    model = cases.classified(cases.mlp())
    done = twin.train(capture_fit(model, (), arguments(*made)), tmp_path / "away").done()
    found = {os.path.relpath(path, here): pathlib.Path(file) for path, file in done.outputs.items()}
    assert keras.saving.load_model(found["best.keras"]).count_params() == model.count_params()
    assert sum(path.startswith("all/0") and path.endswith(".weights.h5") for path in found) == 6
    lines = found["log.csv"].read_text().splitlines()
    assert lines[:2] == ["epoch,accuracy,loss,val_accuracy,val_loss", "0,0,0,0,0"]
    assert len(lines) == 8
    assert any(path.startswith("logs/train/events") for path in found)
    assert all(file.is_relative_to(tmp_path / "away") for file in found.values())
    model.fit(**arguments(*made), verbose=0)  # here, where the same files appear
    mine = {os.path.relpath(path, here): path for path in here.rglob("*") if path.is_file()}
    assert {path for path in found if not path.startswith("logs/")} == {path for path in mine if not path.startswith("logs/")}
    assert found["log.csv"].read_bytes() == mine["log.csv"].read_bytes()
    best = [keras.saving.load_model(files["best.keras"]) for files in (found, mine)]
    assert all(np.array_equal(*pair) for pair in zip(*(one.get_weights() for one in best), strict=True))
    assert {path.split("events")[0] for path in found if path.startswith("logs/")} == {"logs/train/", "logs/validation/"}


class Post(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def listening() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), Post) as server:
        server.bodies = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_remote_monitor_reports_from_the_worker(twin: Any, tmp_path: pathlib.Path) -> None:
    model = cases.classified(cases.mlp())
    with listening() as server:
        monitor = keras.callbacks.RemoteMonitor(f"http://127.0.0.1:{server.server_port}", "/epochs", send_as_json=True)
        outcome = twin.train(capture_fit(model, (), arguments(monitor)), tmp_path / "away").outcome()
    assert [body["epoch"] for body in server.bodies] == list(range(6))
    assert [body["loss"] for body in server.bodies] == outcome["history"]["loss"]


def test_a_remote_monitor_that_reaches_nobody_is_a_line_in_the_log_and_no_more(twin: Any, tmp_path: pathlib.Path) -> None:
    with listening() as server:
        nobody = f"http://127.0.0.1:{server.server_port}"
    captured = capture_fit(cases.classified(cases.mlp()), (), arguments(keras.callbacks.RemoteMonitor(nobody)))
    training = twin.train(captured, tmp_path / "away")
    assert len(training.outcome()["history"]["loss"]) == 6
    assert any(f"Could not reach RemoteMonitor root server at {nobody}" in text for text, _ in training.watched.lines)


def test_arguments_survive_use_and_spellings_that_keras_changes(tmp_path: pathlib.Path) -> None:
    stopping = keras.callbacks.EarlyStopping(monitor="loss", min_delta=0.1)
    checkpoint = keras.callbacks.ModelCheckpoint("x.keras", initial_value_threshold=math.inf, save_freq=7)
    model = cases.classified(cases.mlp())
    model.fit(**cases.classes(), callbacks=[stopping], verbose=0)
    assert stopping.min_delta == -0.1  # Keras' own doing
    specs = callbacks.capture([stopping, checkpoint, keras.callbacks.CSVLogger("a/b.csv", separator=";")])
    again = callbacks.build(json_round_trip(specs), tmp_path)
    assert (again[0].min_delta, again[1].best, again[1].save_freq, again[2].sep) == (0.1, math.inf, 7, ";")
    callbacks.restore_final_state([stopping], [{"class": "EarlyStopping", "min_delta": 5.0, "wait": 3}])
    assert (stopping.min_delta, stopping.wait) == (-0.1, 3)


def json_round_trip(specs: list[CallbackSpec]) -> list[CallbackSpec]:
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(specs), type=list[CallbackSpec])


@pytest.mark.parametrize(
    "spec",
    [
        CallbackSpec("LambdaCallback"),
        CallbackSpec("os.system"),
        CallbackSpec("ModelCheckpoint", {}, "filepath", "../{epoch}/../../x.keras"),
        CallbackSpec("ModelCheckpoint", {}, "filepath", "..{epoch!s:.0}/x.keras"),
        CallbackSpec("ModelCheckpoint", {}, "filepath", "{epoch:.0s}./.{epoch:.0s}/x"),
        CallbackSpec("ModelCheckpoint", {}, "filepath", "{epoch.__class__}.keras"),
        CallbackSpec("ModelCheckpoint", {}, "filepath", "{epoch:999999999d}.keras"),
        CallbackSpec("ModelCheckpoint", {}, "monitor", "x"),
        CallbackSpec("CSVLogger", {}, "filename", ""),
        CallbackSpec("EarlyStopping", {"mode": "min", "patience": "many", "start_from_epoch": {"$float": "x"}}),
    ],
)
def test_a_worker_takes_no_other_callbacks_and_no_path_outside_its_folder(spec: CallbackSpec, tmp_path: pathlib.Path) -> None:
    with pytest.raises(CannotTravel):
        callbacks.build([spec], tmp_path / "own")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_backup_that_lies_there_is_refused_with_the_way_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "latest.weights.h5").write_bytes(b"x")
    with pytest.raises(CannotTravel, match="backup"):
        callbacks.capture(keras.callbacks.BackupAndRestore(str(tmp_path)))
