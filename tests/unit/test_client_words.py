"""What is said about a run, and which error its end raises. Pure."""

from __future__ import annotations

import pathlib
import pickle
import weakref

import pytest

from kafka_jupyter import errors
from kafka_jupyter.client import failure, targets, words
from kafka_jupyter.client.targets import Target
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.task import CallbackSpec
from kafka_jupyter.runs import state as fold
from kafka_jupyter.runs.state import Placed, RunState, State

RUN = "digits-3f2a9c01b7d4"
ATTEMPT = {"run_id": RUN, "n": 1, "worker": "box-1", "nonce": "n"}


def folded(*records: control.Record) -> RunState:
    state = None
    for offset, record in enumerate((control.Submitted(run_id=RUN, task=PLACE, name="digits", owner="ada", epochs=20), *records)):
        state = fold.apply(state, Placed(record, offset, 1000 + offset))
    assert state is not None
    return state


PLACE = control.TaskPlace("task", 0, 0)
CLAIMED = control.Claimed(**ATTEMPT, task=PLACE)
STARTED = control.Started(**ATTEMPT)


def test_a_run_is_said_in_one_line():
    assert words.state_line(RUN, None, None) == f"{RUN}, connecting", "nothing has been read: nothing is claimed"
    assert words.state_line(RUN, None, None, State.QUEUED) == f"{RUN} QUEUED, just submitted"
    assert words.state_line(RUN, folded(), None) == f"{RUN} QUEUED"
    assert words.state_line(RUN, folded(CLAIMED, STARTED), None) == f"{RUN} RUNNING, epoch 1 of 20"
    done = folded(CLAIMED, STARTED, control.Succeeded(**ATTEMPT, epochs=20, metrics={"loss": 0.07312, "nan": None}))
    assert words.state_line(RUN, done, None) == f"{RUN} SUCCEEDED, 20 epochs, loss 0.07312"


@pytest.mark.parametrize(
    ("end", "kind", "said"),
    [
        (
            control.Failed(**ATTEMPT, retryable=False, reason="exception", error="ValueError", message="bad shapes"),
            errors.RunFailed,
            ["ValueError: bad shapes", "box-1", "weights are as before"],
        ),
        (
            control.Failed(**ATTEMPT, retryable=False, reason="mismatch", fields={"kernel": 2.77, "worker_loss": 5.31}),
            errors.ModelMismatch,
            ["2.77", "5.31", "--no-check"],
        ),
    ],
)
def test_a_failed_run_raises_what_happened(end: control.Failed, kind: type[errors.RunError], said: list[str]):
    error = failure.error_of(folded(CLAIMED, STARTED, end))
    assert type(error) is kind
    assert all(word in str(error) for word in said)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


def test_a_dead_run_names_signal_and_memory():
    state = None
    offset = 0
    records: list[control.Record] = [control.Submitted(run_id=RUN, task=PLACE)]
    for n in (1, 2, 3):
        attempt = {**ATTEMPT, "n": n}
        records += [
            control.Claimed(**attempt, task=PLACE),
            control.Failed(**attempt, retryable=True, reason="signal", message="killed", signal=9, memory=3 << 30),
        ]
    for offset, record in enumerate(records):
        state = fold.apply(state, Placed(record, offset, offset))
    assert state is not None
    error = failure.error_of(state)
    assert isinstance(error, errors.RunDead)
    assert "after 3 attempts" in str(error)
    assert "SIGKILL" in str(error)
    assert "3,072 MiB" in str(error)


def test_cancelled_names_who_and_a_run_under_way_has_no_error():
    cancelled = folded(control.CancelRequested(run_id=RUN, request_id="1", by="bob"))
    assert "by bob" in str(failure.error_of(cancelled))
    assert failure.error_of(folded(CLAIMED, STARTED)) is None


class Model:
    name = "mlp"


def target(model: Model, *paths: str) -> Target:
    specs = [CallbackSpec("ModelCheckpoint", {}, "filepath", path) for path in paths]
    return Target(None, RUN, weakref.ref(model), None, [], specs, pathlib.Path("/home/ada"))


@pytest.mark.parametrize(
    ("given", "file", "place"),
    [
        ("best.keras", "best.keras", "/home/ada/best.keras"),
        ("out/at-{epoch:02d}-{val_loss:.2f}.keras", "out/at-03-0.25.keras", "/home/ada/out/at-03-0.25.keras"),
        ("logs", "logs/train/events.1", "/home/ada/logs/train/events.1"),
        ("/data/best.keras", "/data/best.keras", "/data/best.keras"),
        ("../best.keras", "../best.keras", "/home/ada/../best.keras"),
        ("best.keras", "other.keras", None),
        ("best.keras", "/home/ada/.bashrc", None),
        ("logs", "logs/../.bashrc", None),
        ("at-{epoch}.keras", "at-/../../.bashrc", None),
        ("at-{epoch}.keras", "at-1/x.keras", None),
    ],
)
def test_files_go_only_where_a_callback_was_told_to_write(given: str, file: str, place: str | None):
    model = Model()
    found = target(model, given).place_of(file)
    assert (None if found is None else str(found)) == place


def test_a_pending_model_is_known_until_it_is_settled_or_gone():
    model = Model()
    kept = target(model)
    targets.keep(kept)
    assert targets.pending(model) is kept is targets.of_run(RUN)
    targets.settle(kept)
    assert targets.pending(model) is None
    kept = target(model)
    targets.keep(kept)
    del model, kept
    assert targets.of_run(RUN) is None, "the registry keeps nobody alive"
