"""A worker and its store: results that are larger than a submit may be, a store that is away for a while."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import msgspec
import pytest

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import InlineBytes, KafkaRef, UrlRef
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from tests.kafka.conftest import scene
from tests.support.folders import Removable
from tests.support.scene import LEASE_TTL_S, READY_S, Scene
from tests.support.training import mlp, submit, task_of
from tests.support.waiting import wait_until


class FileStore:
    """A folder that is the workers' store, and can be taken away."""

    def __init__(self, folder: pathlib.Path, settings: Settings) -> None:
        shelf = Removable(folder)
        self.take_away, self.bring_back = shelf.take_away, shelf.bring_back
        self._store = open_store(settings.replace(store=folder.as_uri()))

    def put(self, data: bytes) -> UrlRef:
        ref = self._store.put("state", len(data), [data])
        assert isinstance(ref, UrlRef)
        return ref


@pytest.fixture
def store(settings: Settings, tmp_path: pathlib.Path) -> FileStore:
    return FileStore(tmp_path / "store", settings)


@pytest.fixture
def with_store(store: FileStore, settings: Settings, tmp_path: pathlib.Path) -> Iterator[Scene]:
    """A worker whose store is that folder."""
    env = {"KAFKA_JUPYTER_STORE": (tmp_path / "store").as_uri()}
    with scene(settings.replace(lease_ttl_s=LEASE_TTL_S), tmp_path / "workers", env) as made:
        made.workers.start()
        made.workers_there(1)
        yield made


def stored(task: Task, store: FileStore) -> Task:
    """The same task with its model's state in the store."""
    assert isinstance(task.model.state, InlineBytes)
    return msgspec.structs.replace(task, model=msgspec.structs.replace(task.model, state=store.put(task.model.state.data)))


def test_results_above_the_limit_of_a_submit_are_kept_all_the_same(settings: Settings, tmp_path: pathlib.Path) -> None:
    with scene(settings, tmp_path / "workers", {"KAFKA_JUPYTER_STORE_LIMIT": "1000"}) as made:
        made.workers.start()
        state = made.ended(submit(made.log, epochs=1))
    assert state.state is State.SUCCEEDED
    assert isinstance(state.end, control.Succeeded)
    kept = state.end.parts["state"]
    assert isinstance(kept, KafkaRef)
    assert kept.size > 1000


def test_an_attempt_waits_for_a_store_that_is_away_and_hears_a_cancel_meanwhile(with_store: Scene, store: FileStore) -> None:
    (worker,) = with_store.workers.all
    cancelled, patient = (stored(task_of(mlp(), name, 64, 2), store) for name in ("cancelled", "patient"))
    store.take_away()
    run = submit(with_store.log, task=cancelled)
    wait_until(lambda: f"attempt 1 of {run.run_id} waits (preparing)" in worker.log, "it does not wait", within=READY_S)
    run.cancel()
    assert with_store.ended(run, within=5).state is State.CANCELLED
    run = submit(with_store.log, task=patient)
    wait_until(lambda: f"attempt 1 of {run.run_id} waits (preparing)" in worker.log, "it does not wait", within=READY_S)
    store.bring_back()
    state = with_store.ended(run)
    assert (state.state, state.last_n) == (State.SUCCEEDED, 1)


def test_what_was_trained_waits_for_a_store_that_is_away(with_store: Scene, store: FileStore) -> None:
    (worker,) = with_store.workers.all
    run = submit(with_store.log, task=stored(task_of(mlp(), "trained", 256, 100_000), store))
    with_store.running(run)
    store.take_away()
    run.stop()
    wait_until(lambda: f"attempt 1 of {run.run_id} waits (storing)" in worker.log, "it does not wait", within=READY_S)
    beats = sum(isinstance(record, control.Heartbeat) for record in with_store.records(run))
    wait_until(
        lambda: sum(isinstance(record, control.Heartbeat) for record in with_store.records(run)) > beats + 1,
        "its heart stands still",
        within=READY_S,
    )
    store.bring_back()
    state = with_store.ended(run)
    assert (state.state, state.last_n) == (State.SUCCEEDED, 1)
    assert isinstance(state.end, control.Succeeded)
    assert isinstance(state.end.parts["state"], UrlRef)
