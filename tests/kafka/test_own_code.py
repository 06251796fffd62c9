"""Code that a person wrote, on real workers: what runs it, what refuses it, and that it goes on where a killed worker left it."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

import kafka_jupyter
from kafka_jupyter import errors
from kafka_jupyter.client import Client
from kafka_jupyter.models import state as model_state
from kafka_jupyter.protocol import control
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import keeping
from kafka_jupyter.trust.gate import Gate
from kafka_jupyter.trust.keys import KeyFolder
from kafka_jupyter.trust.listed import Role
from tests.capture import own_code
from tests.capture.test_models_exact import assert_same_state
from tests.kafka.conftest import scene
from tests.support.scene import READY_S, Scene
from tests.support.training import digits, mlp
from tests.support.waiting import wait_until

RELOAD_S = 0.2
ALLOWED = {"KAFKA_JUPYTER_ALLOW_CODE": "1", "KAFKA_JUPYTER_TRUST_RELOAD_S": str(RELOAD_S)}


@pytest.fixture(scope="module")
def trusting(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """With a worker that runs code, on topics of its own."""
    settings = module_settings.replace(trust="code", trust_reload_s=RELOAD_S, topic_prefix=f"{module_settings.topic_prefix}code.")
    with scene(settings, tmp_path_factory.mktemp("workers"), ALLOWED) as made:
        made.workers.start("trusting")
        yield made


def _cell(name: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    keras.utils.set_random_seed(7)
    names = own_code.run(name)
    return names, names["model"], {"epochs": 3, **names["given"], "shuffle": False, "verbose": 0}


@pytest.mark.parametrize("name", ["a GAN with two optimizers", "callbacks of its own", "batches of its own"])
def test_a_cell_gets_back_what_it_would_have_trained_itself(trusting: Scene, name: str) -> None:
    _, here, given = _cell(name)
    expected = here.fit(**given)
    names, there, given = _cell(name)
    with kafka_jupyter.train("own", settings=trusting.settings) as session:
        history = there.fit(**given)
    assert history.history == expected.history
    assert_same_state(model_state.dump(here), model_state.dump(there))
    assert session.runs[0].state == "SUCCEEDED"
    shown = trusting.follower.card(session.runs[0].id)
    assert shown["code"] is True
    if name == "callbacks of its own":
        mine = names["remembers"]
        assert sorted(mine.norms) == ["0", "1", "2"]
        assert len(mine.losses) == 3 * 2
        assert mine.best == pytest.approx(min(history.history["loss"]), rel=1e-6)


def test_attach_adopts_the_run_of_the_same_cell(trusting: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    text = own_code.CELLS["a Lambda layer"]
    runs = []
    for change in (("", ""), ("", ""), ("* 2.0", "* 3.0")):
        monkeypatch.setitem(own_code.CELLS, "changed", text.replace(*change))
        names = own_code.run("changed")
        with kafka_jupyter.train("attached", settings=trusting.settings, attach=True) as session:
            names["model"].fit(epochs=2, verbose=0, **names["given"])
        runs.append(session.runs[0].id)
    assert runs[0] == runs[1] != runs[2]


SLOW = """
import pathlib

class Windows(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.order = x, y, np.arange(len(x))

    def __len__(self):
        return 5

    def __getitem__(self, i):
        import time
        time.sleep(PACE_S)  # slow data, so that a kill falls into the middle of an epoch: there is no condition to wait for
        rows = self.order[i * 10 : (i + 1) * 10]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.order = np.roll(self.order, 7)


class Sums(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen, self.by_epoch, self.last = 0, {}, np.zeros(2)

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        self.last = np.array([batch, logs["loss"]])

    def on_epoch_end(self, epoch, logs=None):
        self.by_epoch[epoch] = (self.seen, logs["loss"])
        pathlib.Path("notes/deep").mkdir(parents=True, exist_ok=True)
        with open("notes/deep/epochs.txt", "a") as file:
            print(epoch, self.seen, file=file)


class Noisy(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(5)
        self.w = self.add_weight(shape=(6, 8), initializer="ones")

    def call(self, inputs):
        return ops.relu(inputs @ self.w + keras.random.normal(ops.shape(inputs)[:1] + (8,), seed=self.seeds))


model = keras.Sequential([keras.Input((6,)), Noisy(), layers.Dense(3)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
sums = Sums()
given = {"x": Windows(x, y), "callbacks": [sums]}
"""
EPOCHS = 25


def _slow(monkeypatch: pytest.MonkeyPatch, pace_s: float) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    monkeypatch.setitem(own_code.CELLS, "slow", SLOW.replace("PACE_S", str(pace_s)))
    names, model, given = _cell("slow")
    return names, model, {**given, "epochs": EPOCHS}


def test_what_a_person_wrote_goes_on_exactly_where_a_killed_worker_left_it(
    module_settings: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, model, given = _slow(monkeypatch, 0.0)
    expected = model.fit(**given)
    notes = tmp_path / "notes/deep/epochs.txt"
    wanted = notes.read_text()
    notes.unlink()
    settings = module_settings.replace(trust="code", topic_prefix=f"{module_settings.topic_prefix}killed.")
    eager = {"KAFKA_JUPYTER_CHECKPOINT_GAP_S": "0", "KAFKA_JUPYTER_CHECKPOINT_SHARE": "1", "KAFKA_JUPYTER_CHECKPOINT_EVERY_S": "0.05"}
    with scene(settings, tmp_path / "workers", ALLOWED | eager) as made:
        for _ in range(2):
            made.workers.start("box")
        there, other, given = _slow(monkeypatch, 0.03)
        with kafka_jupyter.train("killed", settings=settings, background=True):
            run = other.fit(**given)
        wait_until(lambda: len(run.history.get("loss", [])) >= 4, "it does not get going", within=READY_S)
        state = made.follower.state(run.id)
        assert state is not None
        assert state.open is not None
        next(worker for worker in made.workers.all if state.open.worker.endswith(worker_tag(made, state.open.worker, worker))).kill()
        run.result()
        ended = made.follower.state(run.id)
        assert ended is not None
        assert [start.n for start in ended.starts] == [1, 2]
        assert ended.starts[1].place > (0, 0)
    assert run.history["loss"] == pytest.approx(expected.history["loss"], rel=1e-6)
    assert_same_state(model_state.dump(model), model_state.dump(other))
    mine, theirs = here["sums"], there["sums"]
    assert (theirs.seen, theirs.by_epoch) == (mine.seen, mine.by_epoch)
    assert np.array_equal(theirs.last, mine.last)
    assert run.files == ["notes/deep/epochs.txt"]
    assert not notes.exists(), "what it is called its worker says"
    assert run.fetch_files() == [pathlib.Path(run.id) / "notes/deep/epochs.txt"]
    assert (tmp_path / run.id / "notes/deep/epochs.txt").read_text() == wanted


def worker_tag(made: Scene, holder: str, worker: Any) -> str:
    """The holder's id if this process is the holder (both are called the same), else something that no id ends with."""
    info = next(info for info in made.follower.workers() if info.worker_id == holder)
    return holder if info.pid == worker.process.pid else "\0"


def test_a_worker_that_runs_no_code_leaves_the_run_to_others_and_the_card_says_why(shared: Scene) -> None:
    _, model, given = _cell("a Lambda layer")
    with kafka_jupyter.train("waits", settings=shared.settings.replace(trust="code"), background=True):
        run = model.fit(**given)
    wait_until(lambda: "--allow-code" in _waits(shared, run.id), "the card does not say why it waits", within=READY_S)
    assert run.state == "QUEUED"
    run.cancel()


def _says(run: Any, said: str) -> bool:
    return str(run.card()["waiting"]).startswith(said)


def _waits(made: Scene, run_id: str) -> str:
    return str(made.follower.card(run_id)["waiting"]) if made.follower.state(run_id) is not None else ""


def test_a_package_that_no_worker_has_is_named(trusting: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from kafka_jupyter.models import usercode

    _, model, given = _cell("a Lambda layer")
    monkeypatch.setattr(usercode.Travelling, "packages", lambda self: {"astropy-kepler": "3.1.4"})
    with kafka_jupyter.train("lacks", settings=trusting.settings, background=True):
        run = model.fit(**given)
    said = "Waiting: no worker has astropy-kepler 3.1.4 (it has none). 1 worker is there."
    wait_until(lambda: _waits(trusting, run.id) == said, "the card does not name it", within=READY_S)
    run.cancel()


@pytest.fixture
def stranger(trusting: Scene, tmp_path: pathlib.Path) -> Settings:
    """Somebody whose key may submit, but bring no code."""
    settings = trusting.settings.replace(key_dir=tmp_path / "keys", cache_dir=tmp_path / "cache")
    key = KeyFolder(settings.key_dir).make(int(time.time() * 1000))
    keeping.trust(settings, keeping.Exported(key.public, "grace"), [Role.SUBMITTER], int(time.time() * 1000))
    wait_until(lambda: Role.SUBMITTER in Gate(settings).signer.roles(), "the key never counts")
    return settings


CANARY = """
import pathlib

class Canary(keras.layers.Layer):
    def __reduce__(self):
        return (pathlib.Path(CANARY_FILE).write_text, ("somebody's code has run",))

    def call(self, inputs):
        pathlib.Path(CANARY_FILE).write_text("somebody's code has run")
        return inputs

model = keras.Sequential([keras.Input((6,)), layers.Lambda(lambda v: v), layers.Dense(3)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
given = {"x": x, "y": y}
"""


def test_a_key_without_the_role_is_refused_where_it_submits_and_by_every_worker(
    trusting: Scene, stranger: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    monkeypatch.setitem(own_code.CELLS, "canary", CANARY.replace("CANARY_FILE", repr(str(canary))))
    _, model, given = _cell("canary")
    with pytest.raises(errors.NotTrusted, match="not trusted as code"), kafka_jupyter.train("theirs", settings=stranger):
        model.fit(**given)
    # Somebody who does not ask their own gate: the record is as good as they can make it.
    monkeypatch.setattr("kafka_jupyter.trust.gate.Gate.check_code", lambda self, servers: None)
    with kafka_jupyter.train("theirs", settings=stranger, background=True):
        run = model.fit(**given)
    with pytest.raises(errors.RunFailed, match="no role `code`"):
        run.wait(READY_S)
    state = wait_until(lambda: (s := trusting.follower.state(run.id)) is not None and s.terminal and s, "not read", within=30)
    assert isinstance(state.end, control.Failed)
    assert (state.state, state.end.reason, state.end.error, state.starts) == (State.FAILED, "refused", "NeedsTrust", ())
    assert not canary.exists()


def test_modules_beside_the_notebook_are_sent_along(trusting: Scene, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("from helpers.inner import FACTOR\n")
    (tmp_path / "helpers" / "inner.py").write_text("FACTOR = 3.0\ndef scale(v):\n    from helpers import FACTOR\n    return v * FACTOR\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cell = """
        import helpers.inner
        model = keras.Sequential([keras.Input((6,)), layers.Lambda(lambda v: helpers.inner.scale(v)), layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        given = {"x": x, "y": y}
    """
    monkeypatch.setitem(own_code.CELLS, "helped", cell)
    _, model, given = _cell("helped")
    said = r"helpers/__init__\.py, which the worker does not have\. Send the file along: --include"
    with pytest.raises(errors.CannotTravel, match=said), kafka_jupyter.train("helped", settings=trusting.settings):
        model.fit(**given)
    expected = model.fit(**given).history
    _, model, given = _cell("helped")
    with kafka_jupyter.train("helped", settings=trusting.settings, include=["helpers"]):
        assert model.fit(**given).history == expected


def test_somebody_whom_no_worker_trusts_is_told_by_the_card(trusting: Scene, tmp_path: pathlib.Path) -> None:
    """They have no trust file themselves, so their own gate cannot tell."""
    elsewhere = {"trust_policy": "off", "trust_file": tmp_path / "none.toml", "cache_dir": tmp_path / "cache", "trust": "data"}
    stranger = trusting.settings.replace(key_dir=tmp_path / "keys", **elsewhere)
    key = KeyFolder(stranger.key_dir).make(int(time.time() * 1000) - 1000)
    for settings, said in (
        (stranger, f"Waiting: no worker trusts the key {key.kid} that has submitted it"),
        (stranger.replace(key_dir=tmp_path / "nothing"), "Waiting: the workers there take signed tasks only."),
    ):
        model = mlp()
        with kafka_jupyter.train("theirs", settings=settings, background=True):
            run = model.fit(*(part[:64] for part in digits()), epochs=1)
        wait_until(functools.partial(_says, run, said), f"the card does not say {said!r}", within=30)
        assert trusting.follower.state(run.id) is None, "who trusts nobody of that name knows no such run"


def test_a_model_of_ones_own_code_is_not_built_from_the_log_but_takes_what_it_has_learned(trusting: Scene) -> None:
    _, model, given = _cell("a subclassed model")
    with kafka_jupyter.train("learned", settings=trusting.settings) as session:
        model.fit(**given)
    (run,) = session.runs
    run.release()
    with pytest.raises(errors.NotRebuilt, match=r"is of your own code.*run\.result\(into=model\)"):
        Client(trusting.settings).attach(run.id).result()
    _, again, given = _cell("a subclassed model")
    again(given["x"][:1])
    assert Client(trusting.settings).attach(run.id).result(into=again) is again
    assert_same_state(model_state.dump(model), model_state.dump(again))
