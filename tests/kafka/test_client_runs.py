"""The handle: what it shows, what it waits for, what it can ask for; the model meanwhile."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kafka_jupyter
from kafka_jupyter import errors
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.task import Requirements
from tests.kafka.conftest import Scene
from tests.support.local import run_python
from tests.support.pace import paced
from tests.support.terminal import terminal
from tests.support.training import digits, mlp, task_of
from tests.support.waiting import wait_until

LONG = 5000  # epochs that nobody waits for


@pytest.fixture
def client(shared: Scene) -> Iterator[Client]:
    made = Client(shared.settings)
    yield made
    for run in made.runs(owner=shared.settings.owner):
        run.cancel()
    made.close()


@contextlib.contextmanager
def background(scene: Scene, name: str, epochs: int, **options: Any) -> Iterator[tuple[Any, TrainingRun]]:
    """A model and the run that trains it; one of LONG leaves the processor to the others."""
    x, y = digits()
    model = mlp()
    with kafka_jupyter.train(name, settings=scene.settings, background=True, **options):
        run = model.fit(x[:256], y[:256], epochs=epochs, callbacks=[paced()] if epochs == LONG else [], verbose=0)
    try:
        yield model, run
    finally:
        run.cancel()


def going(run: TrainingRun) -> None:
    wait_until(lambda: run.history, f"{run!r} never got going", within=60)


def test_background_gives_the_handle_at_once_and_result_loads_the_model(shared: Scene, client: Client) -> None:
    with background(shared, "back", 3) as (model, run):
        before = model.get_weights()
        assert isinstance(run, TrainingRun)
        assert run.pending
        assert run.id in repr(run)
        assert run.name == "back"
        assert run.result() is model
        assert not run.pending
        assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        assert len(model.history.history["loss"]) == 3
        assert run.state == "SUCCEEDED"
        assert set(run.metrics) == {"accuracy", "loss"}
        assert run.error is None
        model.layers[0].kernel.assign(model.layers[0].kernel * 0)
        run.result()
        assert not model.layers[0].kernel.numpy().any(), "weights come back once"


def test_a_model_that_is_being_trained_refuses_everything_that_would_surprise(shared: Scene, client: Client) -> None:
    x, y = digits()
    with background(shared, "guarded", LONG) as (model, run):
        uses = {
            "fit": lambda: model.fit(x, y), "evaluate": lambda: model.evaluate(x, y), "predict": lambda: model.predict(x),
            "compile": lambda: model.compile("sgd", "mse"), "save": lambda: model.save("never.keras"),
            "set_weights": lambda: model.set_weights([]), "load_weights": lambda: model.load_weights("never.weights.h5"),
            "train_on_batch": lambda: model.train_on_batch(x, y), "save_weights": lambda: model.save_weights("never.weights.h5"),
        }  # fmt: skip
        for name, use in uses.items():
            with pytest.raises(errors.RunPending) as caught:
                use()
            assert run.short in str(caught.value), name
            assert "run.result()" in str(caught.value)
            assert "run.release()" in str(caught.value)
        going(run)
        with pytest.raises(errors.RunPending, match=rf"epoch \d+ of {LONG}"):
            model.evaluate(x, y)
        with pytest.raises(errors.RunPending), kafka_jupyter.train("guarded", settings=shared.settings):
            model.fit(x, y)
        mlp().evaluate(x, y, verbose=0)  # other models are free
        before = model.get_weights()
        run.release()
        assert model.evaluate(x, y, verbose=0)
        assert run.state == "RUNNING", "the run goes on"
        run.stop()
        other = run.result(timeout=60)
        assert other is not model, "the released one was never trained"
        assert run.result() is other
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        assert run.result(into=model) is model
        assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), model.get_weights(), strict=True))


def test_stop_keeps_the_weights_so_far(shared: Scene, client: Client) -> None:
    with background(shared, "stopped", LONG) as (model, run):
        going(run)
        run.stop()
        run.result(timeout=60)
        assert run.state == "SUCCEEDED"
        assert 0 < len(model.history.epoch) < LONG
        assert model.stop_training


def test_cancel_ends_the_run_and_lets_the_model_go(shared: Scene, client: Client) -> None:
    x, y = digits()
    with background(shared, "gone", LONG) as (model, run):
        before = model.get_weights()
        going(run)
        run.cancel()
        with pytest.raises(errors.RunCancelled, match="weights are as before"):
            run.wait(timeout=60)
        assert isinstance(run.error, errors.RunCancelled)
        model.evaluate(x, y, verbose=0)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        run.cancel()  # once more changes nothing


def test_a_failed_run_speaks_up_once_where_its_model_is_used(shared: Scene, client: Client) -> None:
    x, y = digits()
    model = mlp()
    with kafka_jupyter.train("failing", settings=shared.settings, background=True):
        run = model.fit(x[:64, :7], y[:64])
    wait_until(lambda: run.ended, "it never failed", within=60)
    with pytest.raises(errors.RunFailed):
        model.evaluate(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)


def test_waiting_ends_after_the_timeout_and_the_run_goes_on(shared: Scene, client: Client) -> None:
    with background(shared, "slow", LONG) as (_, run):
        going(run)
        started = time.monotonic()
        with pytest.raises(errors.WaitTimeout, match="epoch"):
            run.wait(timeout=0.3)
        assert time.monotonic() - started < 3
        assert run.state == "RUNNING"


def test_events_come_in_order_from_the_first_to_the_end(shared: Scene, client: Client) -> None:
    with background(shared, "events", 4) as (_, run):
        seen = list(run.events())
    assert [event.epoch for event in seen if event.kind == "epoch"] == [0, 1, 2, 3]
    assert seen[-1].kind == "state"
    assert seen[-1].state == "SUCCEEDED"
    assert [e.kind for e in TrainingRun(client, run.id).events() if e.kind == "epoch"] == ["epoch"] * 4, "again, from the log"


def test_a_terminal_shows_a_training_while_it_goes_on_and_its_result(shared: Scene, client: Client) -> None:
    with background(shared, "seen", LONG) as (_, run):
        env = shared.workers.environment(shared.workers.all[0].folder)
        with terminal([sys.executable, "-m", "kafka_jupyter.cli", "follow", run.id], env) as shown:
            shown.shows(" RUNNING ", f"{run.id}  epoch ", " left", "━", "worker shared-", "heartbeat", "loss  ", "★", within=60)
            run.stop()
            assert shown.end(60) == 0
        assert f" SUCCEEDED  {run.id}  {run.card()['epochs_done']} of {LONG} epochs in " in shown.screen.text
        assert "stopped early" in shown.screen.text


def test_runs_lists_the_newest_first_and_attach_understands_names(shared: Scene, client: Client) -> None:
    with background(shared, "twins", 1) as (_, first), background(shared, "twins", 1) as (_, second):
        assert [run.id for run in client.runs(name="twins")] == [second.id, first.id]
        assert client.attach("twins") == second
        assert client.attach(first.short) == first
        assert client.attach(first.id[-12:]) == first
        with pytest.raises(errors.RunNotFound, match=second.id):
            client.attach(second.id[:-1] + "x")
        first.wait(60), second.wait(60)
        assert {run.id for run in client.runs(name="twins", state="succeeded")} == {first.id, second.id}


def test_another_persons_run_needs_its_whole_id_and_force(shared: Scene, client: Client) -> None:
    bob = Client(shared.settings.replace(owner="bob@test"))
    with background(shared, "mine", LONG) as (_, run):
        for named in (bob.attach(run.short), bob.attach(run.id)):
            with pytest.raises(errors.NotYourRun, match=shared.settings.owner):
                named.cancel()
        with pytest.raises(errors.NotYourRun):
            bob.attach(run.short).cancel(force=True)
        bob.attach(run.id).cancel(force=True)
        with pytest.raises(errors.RunCancelled, match="bob@test"):
            run.wait(60)


def test_another_kernel_builds_the_model_from_the_log_alone(shared: Scene, client: Client, tmp_path) -> None:
    import keras

    x, _ = digits()
    with background(shared, "elsewhere", 2) as (model, run):
        expected = run.result().predict(x[:8], verbose=0)
    env = shared.workers.environment(tmp_path) | {"KAFKA_JUPYTER_OWNER": shared.settings.owner}
    np.save(tmp_path / "x.npy", x[:8])
    code = f"""
import numpy as np, kafka_jupyter
run = kafka_jupyter.attach({run.short!r})
model = run.result()
assert run.result() is model
np.save({str(tmp_path / "y.npy")!r}, model.predict(np.load({str(tmp_path / "x.npy")!r}), verbose=0))
print(len(run.history["loss"]), model.history.epoch, int(model.optimizer.iterations.numpy()))
"""
    assert run_python(code, env) == "2 [0, 1] 16"
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected)

    other = mlp()
    assert client.attach(run.id).result(into=other) is other
    assert np.array_equal(other.predict(x[:8], verbose=0), expected)
    wrong = mlp(units=5)
    before = wrong.get_weights()
    with pytest.raises(errors.DoesNotFit, match="Nothing was assigned"):
        client.attach(run.id).result(into=wrong)
    assert all(np.array_equal(a, b) for a, b in zip(before, wrong.get_weights(), strict=True))
    assert isinstance(model, keras.Model)


def test_a_handle_pickles_as_its_run_id(shared: Scene, client: Client, monkeypatch) -> None:
    with background(shared, "pickled", 1) as (_, run):
        run.wait(60)
        for name in ("bootstrap_servers", "topic_prefix", "owner", "data_dir", "cache_dir"):
            monkeypatch.setenv(f"KAFKA_JUPYTER_{name.upper()}", str(getattr(shared.settings, name)))
        again = pickle.loads(pickle.dumps(run))
        assert again == run
        assert again.wait(60).state == "SUCCEEDED"


def test_an_unpickled_handle_claims_nothing_before_it_has_read_the_log_and_reads_it_on_its_own(
    shared: Scene, client: Client, tmp_path
) -> None:
    with background(shared, "unpickled", 1) as (_, run):
        run.wait(60)
    env = shared.workers.environment(tmp_path) | {"KAFKA_JUPYTER_OWNER": shared.settings.owner}
    code = f"""
import pickle
from tests.support.waiting import wait_until
run = pickle.loads({pickle.dumps(run)!r})
print(run.state in (None, "SUCCEEDED"), "QUEUED" in repr(run), run.card()["state"] == "QUEUED")
print(wait_until(lambda: run.state, "it never read the log"))
"""
    assert run_python(code, env).split() == ["True", "False", "False", "SUCCEEDED"]


def test_a_handle_that_has_read_nothing_asks_whose_run_it_is_before_it_ends_it(shared: Scene, client: Client, tmp_path) -> None:
    env = shared.workers.environment(tmp_path) | {"KAFKA_JUPYTER_OWNER": "bob@test"}
    with background(shared, "fresh", LONG) as (_, run):
        going(run)
        code = f"""
import pickle
from kafka_jupyter import errors
try:
    pickle.loads({pickle.dumps(run)!r}).cancel()
except errors.NotYourRun as refused:
    print(refused)
"""
        assert shared.settings.owner in run_python(code, env)
        assert run.state == "RUNNING"


def test_a_run_that_nobody_has_submitted_cannot_be_ended(shared: Scene, client: Client) -> None:
    unknown = ids.new_run_id("nobody")
    with pytest.raises(errors.RunNotFound, match=unknown):
        TrainingRun(client, unknown).stop()
    assert shared.log_records(unknown) == []


def test_a_forked_child_makes_its_own_connection(shared: Scene, client: Client, tmp_path) -> None:
    env = shared.workers.environment(tmp_path) | {"KAFKA_JUPYTER_OWNER": shared.settings.owner}
    with background(shared, "forked", 1) as (_, run):
        run.wait(60)
    code = f"""
import os, kafka_jupyter
run = kafka_jupyter.attach({run.id!r})
child = os.fork()
if child == 0:
    ok = run.state is None and "connecting" in repr(run) and run.wait(30).state == "SUCCEEDED"
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), run.state)
"""
    assert run_python(code, env | {"PYTHONWARNINGS": "ignore"}) == "0 SUCCEEDED"


def test_submitting_the_same_id_again_makes_one_run(shared: Scene, client: Client) -> None:
    task = task_of(mlp(), "once", 64, 1)
    for _ in range(3):
        run = client.submit(task)
    run.wait(60)
    wait_until(lambda: not client.connection().outbox.pending(), "Submitted was never read back")
    records = [type(record).__name__ for record in shared.records(shared_run(shared, task))]
    assert records.count("Started") == records.count("Succeeded") == 1


def shared_run(scene: Scene, task: Any) -> Any:
    from tests.support.training import Submission

    return Submission(scene.log, task.run_id, task)


def test_a_model_that_arrives_altered_ends_with_both_losses(shared: Scene, client: Client) -> None:
    with background(shared, "altered", LONG, check=False) as (_, run):
        settings = {"check_loss": 123.0, "check_rtol": 1e-3}
        shared.log.write_control(control.SettingsRequested(run_id=run.id, request_id=ids.new_request_id(), settings=settings))
        with pytest.raises(errors.ModelMismatch, match=r"123.*--no-check"):
            run.wait(60)


def test_the_first_fit_of_a_model_is_checked_and_only_that(shared: Scene, client: Client) -> None:
    x, y = digits()
    model = mlp()
    with kafka_jupyter.train("checked", settings=shared.settings) as session:
        for _ in range(2):
            model.fit(x[:128], y[:128], epochs=1)
    with kafka_jupyter.train("checked", settings=shared.settings, background=True) as later:
        mlp().fit(x[:128], y[:128], epochs=200)
    (third,) = later.runs

    def checks(run: TrainingRun) -> int:
        state = client.connection().follower().state(run.id)
        return len(state.settings) if state else 0

    wait_until(lambda: checks(third) == 1, "the run in the background was never checked", within=30)
    third.wait(60)
    assert [checks(run) for run in session.runs] == [1, 0]


@pytest.mark.parametrize(("wish", "raised", "ends"), [("detach", errors.Detached, "RUNNING"), ("cancel", errors.RunCancelled, "CANCELLED")])
def test_an_interrupt_leaves_or_cancels(shared: Scene, client: Client, wish: str, raised: type[BaseException], ends: str) -> None:
    x, y = digits()
    model = mlp()
    with (
        interrupt_when_running(client, f"int-{wish}"),
        pytest.raises(raised) as caught,
        kafka_jupyter.train(f"int-{wish}", settings=shared.settings, on_interrupt=wish),
    ):
        model.fit(x[:256], y[:256], epochs=LONG, callbacks=[paced()])
    run = client.attach(f"int-{wish}")
    assert run.state == ends
    if wish == "detach":
        assert f"%kafka_attach {run.short}" in str(caught.value)
        assert isinstance(caught.value, KeyboardInterrupt)
        assert run.pending, "the model is still being trained"
        run.stop()
        assert run.result(timeout=60) is model


def test_an_interrupt_may_stop_and_the_code_after_fit_goes_on(shared: Scene, client: Client) -> None:
    x, y = digits()
    with interrupt_when_running(client, "int-stop"), kafka_jupyter.train("int-stop", settings=shared.settings, on_interrupt="stop"):
        history = mlp().fit(x[:256], y[:256], epochs=LONG)
    assert 0 < len(history.epoch) < LONG


@contextlib.contextmanager
def interrupt_when_running(client: Client, name: str) -> Iterator[None]:
    """SIGINT to this process, as the interrupt button sends it, once the run of this name has ended an epoch."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if any(run.history for run in client.runs(name=name)):
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_hopeless_wait_ends_with_a_named_error(shared: Scene, client: Client) -> None:
    task = task_of(mlp(), "nobody", 64, 1, requirements=Requirements(device="gpu"))
    run = client.submit(task)
    from kafka_jupyter.capture.options import Options, Place
    from kafka_jupyter.capture.view import Lines
    from kafka_jupyter.capture.waiting import wait_for

    with pytest.raises(errors.QueueTimeout) as caught:
        wait_for(run, client, Lines(), Options(queue_timeout=0.5), Place("x"))
    assert "no worker has a GPU" in str(caught.value)
    assert f"%kafka_attach {run.id}" in str(caught.value)
    assert run.state == "QUEUED"
    assert "GPU" in run.waiting
