"""Two workers that share nothing but Kafka train two runs at once."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable

import psutil

import kafka_jupyter
from kafka_jupyter.client import Client
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from tests.support.scene import Scene
from tests.support.training import digits, mlp
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess


def test_two_workers_in_different_folders_train_two_runs_at_once(own: Scene) -> None:
    x, y = digits()  # too large for the task's record: the data go through the store
    first, second = own.workers.start("first"), own.workers.start("second")
    own.workers_there(2)
    with contextlib.closing(Client(own.settings)) as client:
        models = [mlp(), mlp(32)]
        with kafka_jupyter.train("pair", settings=own.settings, background=True):
            runs = [model.fit(x, y, epochs=100_000, verbose=0) for model in models]
        for run in runs:
            wait_until(lambda run=run: len(run.history.get("loss", [])) > 3, f"{run!r} never got going", within=90)
        written = [set(files_written(worker)) for worker in (first, second)]
        for run in runs:
            run.stop()
        for run, model in zip(runs, models, strict=True):
            assert run.result(timeout=60) is model
        assert {run.id: run.state for run in client.runs()} == {run.id: "SUCCEEDED" for run in runs}
        assert {run.card()["worker"].split("-")[0] for run in runs} == {"first", "second"}
    (a_begin, a_end), (b_begin, b_end) = (epochs_appended_ms(own, run.id) for run in runs)
    assert max(a_begin, b_begin) < min(a_end, b_end), "one after the other"
    assert written[0], "nothing was seen of a worker's files"
    assert not written[0] & written[1]


def epochs_appended_ms(scene: Scene, run_id: str) -> tuple[int, int]:
    """When Kafka appended the first and the last epoch of this run, by its own clock."""
    place = scene.log.topics.place(topics.TRAINING_LOG, run_id)
    times = [
        message.time_ms
        for message in scene.log.read_range(place, 0, None)
        if isinstance(batch := scene.log.decode(message), RowBatch)
        and batch.run_id == run_id
        and any(isinstance(row, EpochEnded) for row in batch.rows)
    ]
    return min(times), max(times)


def files_written(worker: WorkerProcess) -> Iterable[pathlib.Path]:
    """Files that the worker and its children hold open for writing."""
    supervisor = psutil.Process(worker.process.pid)
    for process in [supervisor, *supervisor.children(recursive=True)]:
        for file in process.open_files():
            if set(file.mode) & set("wa+"):
                yield pathlib.Path(file.path)
