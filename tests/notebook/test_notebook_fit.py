"""Other people's notebooks work unchanged: each sentence of "fit keeps its meaning", in a kernel, headless.

One notebook is run once for the whole module; the tests read its cells.
"""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.support.notebooks import MIME, Ran, run_notebook
from tests.support.scene import Scene

MODEL = """
def build():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""

CELLS = {
    "load": "%load_ext kafka_jupyter",
    "imports_keras_itself": f"""%%kafka_train digits
import keras, numpy as np
from sklearn.datasets import load_digits
bunch = load_digits()
x, y = (bunch.data / 16).astype("float32")[:600], bunch.target[:600]
{MODEL}
model = build()
before = model.get_weights()
history = model.fit(x, y, validation_split=0.1, epochs=5, verbose=0)
print("same cell", len(history.history["val_loss"]), model.evaluate(x, y, verbose=0)[0] < history.history["loss"][0])""",
    "next_cell": """print("next cell", all((a != b).any() for a, b in zip(before, model.get_weights())), history is model.history)""",
    "k_fold": """%%kafka_train fold
scores = []
for fold in range(3):
    held = np.arange(len(x)) % 3 == fold
    each = build()
    each.fit(x[~held], y[~held], epochs=3, verbose=0)
    scores.append(each.evaluate(x[held], y[held], verbose=0)[1])
print(len(set(scores)))""",
    "native": """%%kafka_train native
import asyncio
await asyncio.sleep(0)
!echo from the shell
%time more = model.fit(x, y, epochs=2, verbose=0)
len(more.epoch)""",
    "underscore": "print(_)",
    "semicolon": """%%kafka_train quiet
model.fit(x, y, epochs=1, verbose=0);""",
    "line_numbers": """%%kafka_train lines
model.fit(x, y, epochs=1, verbose=0)

1 / 0""",
    "background": """%%kafka_train back --background
other = build()
run = other.fit(x, y, epochs=2, verbose=0)
run""",
    "pending": "other.evaluate(x, y, verbose=0)",
    "result": """print(run.result() is other, len(other.history.epoch), run.pending)
other.evaluate(x, y, verbose=0)[0] > 0""",
    "files": """%%kafka_train files
stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=10, patience=1)
writers = [keras.callbacks.ModelCheckpoint("out/best.keras"), keras.callbacks.CSVLogger("log.csv")]
model.fit(x, y, epochs=9, verbose=0, callbacks=[stop, *writers])
print(stop.stopped_epoch, len(open("log.csv").readlines()), keras.models.load_model("out/best.keras").name == model.name)""",
    "no_fit": """%%kafka_train nothing
1 + 1""",
    "syntax": """%%kafka_train nothing
x = (""",
    "cannot_travel": """%%kafka_train nothing
bad = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, activation=lambda z: z)])
bad.compile("adam", "mse")
bad.fit(x, y)""",
    "fails_there": """%%kafka_train broken
build().fit(x[:, :3], y, epochs=1)""",
    "attach": "again = %kafka_attach digits\nagain",
    "no_such_run": "%kafka_attach digts",
    "runs": "%kafka_runs --name digits",
    "workers": "%kafka_workers",
    "helper_module": """import kafka_jupyter
with kafka_jupyter.train("helper"):
    build().fit(x, y, epochs=1, verbose=0)""",
}


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def ran(shared: Scene, kernel_env: dict[str, str], folder: pathlib.Path) -> dict[str, Ran]:
    return run_notebook(CELLS, folder, kernel_env)


def test_a_cell_that_imports_keras_itself_is_captured_and_evaluates_the_trained_model(ran: dict[str, Ran]) -> None:
    assert "same cell 5 True" in ran["imports_keras_itself"].text
    assert len(ran["imports_keras_itself"].runs) == 1


def test_the_next_cell_sees_the_trained_model(ran: dict[str, Ran]) -> None:
    assert ran["next_cell"].text == "next cell True True\n"


def test_a_k_fold_loop_has_one_card_with_a_row_for_each_fit(ran: dict[str, Ran]) -> None:
    assert ran["k_fold"].text.strip().isdigit()
    assert len(ran["k_fold"].cards) == 1
    assert len(set(ran["k_fold"].runs)) == 3


def test_await_time_shell_commands_and_out_work_in_the_cell(ran: dict[str, Ran]) -> None:
    assert "from the shell" in ran["native"].text
    assert "Wall time" in ran["native"].text
    assert ran["native"].result == "2"
    assert ran["underscore"].text == "2\n"
    assert len(ran["native"].runs) == 1


def test_a_semicolon_keeps_the_result_quiet(ran: dict[str, Ran]) -> None:
    assert ran["semicolon"].result is None
    assert len(ran["semicolon"].runs) == 1


def test_tracebacks_name_the_line_and_appear_once(ran: dict[str, Ran]) -> None:
    errors = [output for output in ran["line_numbers"].outputs if output["output_type"] == "error"]
    assert len(errors) == 1
    assert errors[0]["ename"] == "ZeroDivisionError"
    assert "line 4" in plain("\n".join(errors[0]["traceback"]))


def test_the_saved_output_is_final_and_static(ran: dict[str, Ran]) -> None:
    (card,) = ran["imports_keras_itself"].cards
    assert set(card) == {MIME, "text/html", "text/plain"}
    assert "SUCCEEDED" in card["text/plain"]
    assert "5 epochs" in card["text/plain"]
    assert "<script" not in card["text/html"]
    (background,) = ran["background"].cards
    assert "SUCCEEDED" in background["text/plain"], "finished by the cell that waited for it"


def test_the_handles_own_repr_is_quiet_where_its_card_is(ran: dict[str, Ran]) -> None:
    assert ran["background"].result is None
    assert ran["background"].error is None
    assert len(ran["background"].cards) == 1
    assert ran["attach"].result is None
    assert ran["attach"].runs == ran["imports_keras_itself"].runs


def test_a_model_that_is_being_trained_refuses_to_be_evaluated_until_its_result_is_there(ran: dict[str, Ran]) -> None:
    assert ran["pending"].error["ename"] == "RunPending"
    assert len(ran["pending"].error["traceback"]) == 1, "one line"
    assert ran["result"].text == "True 2 False\n"
    assert ran["result"].result == "True"


def test_files_of_callbacks_lie_where_the_person_wanted_them(ran: dict[str, Ran], folder: pathlib.Path) -> None:
    stopped, lines, loads = ran["files"].text.split()
    assert int(stopped) < 8
    assert int(lines) == int(stopped) + 2
    assert loads == "True"
    assert sorted(path.name for path in folder.iterdir()) == ["log.csv", "out"]


def test_a_cell_without_fit_fails_with_one_line_and_a_syntax_error_is_the_normal_one(ran: dict[str, Ran]) -> None:
    assert "UsageError: %%kafka_train: No Keras `fit`" in ran["no_fit"].text
    assert ran["no_fit"].result == "2", "the cell itself has run"
    assert ran["syntax"].error["ename"] == "SyntaxError"
    assert not ran["syntax"].cards


def test_what_cannot_travel_is_named_and_nothing_is_sent(ran: dict[str, Ran]) -> None:
    assert ran["cannot_travel"].error["ename"] == "CannotTravel"
    assert not ran["cannot_travel"].cards


def test_an_exception_in_training_shows_the_remote_traceback_only(ran: dict[str, Ran]) -> None:
    error = ran["fails_there"].error
    assert error["ename"] == "RunFailed"
    shown = "\n".join(error["traceback"])
    assert "kafka_jupyter/training" in shown
    assert "kafka_jupyter/capture" not in shown
    assert "FAILED" in ran["fails_there"].cards[0]["text/plain"]


def test_the_other_magics_answer_in_text_and_unknown_runs_in_one_line(ran: dict[str, Ran]) -> None:
    (run_id,) = ran["imports_keras_itself"].runs
    assert ran["runs"].text.startswith(f"{run_id} SUCCEEDED, 5 epochs")
    assert "slots free" in ran["workers"].text
    assert ran["no_such_run"].text.startswith("UsageError: There is no run 'digts'")
    assert run_id in ran["no_such_run"].text
    assert ran["no_such_run"].text.count("\n") == 1


def test_the_with_block_of_a_helper_module_shows_the_same_card(ran: dict[str, Ran]) -> None:
    (card,) = ran["helper_module"].cards
    assert "helper" in card["text/plain"]
    assert "SUCCEEDED" in card["text/plain"]


def test_restart_and_run_all_costs_nothing_twice(ran: dict[str, Ran], kernel_env: dict[str, str], folder: pathlib.Path) -> None:
    cells = {name: CELLS[name] for name in ("load", "imports_keras_itself", "next_cell")}
    cells["imports_keras_itself"] = cells["imports_keras_itself"].replace("%%kafka_train digits", "%%kafka_train digits --attach")
    again = run_notebook(cells, folder, kernel_env)
    assert again["imports_keras_itself"].runs == ran["imports_keras_itself"].runs
    assert "Attached to" in again["imports_keras_itself"].text
    assert "same cell 5 True" in again["imports_keras_itself"].text
    assert again["next_cell"].text == "next cell True True\n"
