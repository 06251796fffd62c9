"""A worker that can never hear of runs again ends, says why, and takes its children along."""

from __future__ import annotations

import os
import signal

from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.topics import open_topics
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from tests.kafka.conftest import NO_CHECKPOINTS
from tests.support import raw
from tests.support.scene import READY_S, Scene, gone
from tests.support.training import endless, submit
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess, workers

SOON_S = 30.0  # two cores that many tests share


def ended(worker: WorkerProcess) -> int:
    wait_until(lambda: worker.process.poll() is not None, "the worker goes on", within=SOON_S)
    return int(worker.process.returncode)


def test_a_worker_whose_topics_are_missing_says_so_and_exits(settings: Settings, tmp_path) -> None:
    with workers(settings, tmp_path) as started:
        worker = started.start()
        assert ended(worker) == 1
        assert f"kafka-jupyter: The topic {settings.topic_prefix}" in worker.log
        assert "`kafka-jupyter topics init` creates what is missing" in worker.log
        assert "Traceback" not in worker.log


def test_a_worker_that_cannot_follow_the_log_to_begin_with_names_the_reason(own: Scene) -> None:
    worker = own.workers.start()
    wait_until(lambda: "loads Keras" in worker.log, "it does not start", within=READY_S)
    Admin(own.log.cluster).delete([own.log.topics.name(topics.RUN_STATE)])
    assert ended(worker) == 1
    assert f"kafka-jupyter: The topic {own.settings.topic_prefix}run_state does not exist" in worker.log
    assert "Traceback" not in worker.log


def test_a_worker_whose_log_is_deleted_under_it_ends_with_its_children(own: Scene) -> None:
    worker = own.workers.start()
    run = endless(own.log)
    own.running(run)
    pid = own.child_pid(run)
    Admin(own.log.cluster).delete([own.log.topics.name(topics.RUN_CONTROL)])
    assert ended(worker) == 1
    assert f"kafka-jupyter: The topic {own.settings.topic_prefix}run_control does not exist" in worker.log
    wait_until(lambda: gone(pid), "the child outlived its supervisor")
    wait_until(lambda: not own.follower.workers(), "it is still announced")


def test_a_worker_without_a_place_for_dead_letters_goes_on_and_writes_them_when_there_is_one(own: Scene) -> None:
    worker = own.workers.start(more_env=NO_CHECKPOINTS)
    run = endless(own.log, "crashing")
    own.running(run)
    dlq = own.log.topics.name(topics.TASK_DLQ)
    Admin(own.log.cluster).delete([dlq])
    for attempt in (1, 2, 3):
        own.reached(run, attempt)
        os.kill(own.child_pid(run), signal.SIGSEGV)
    assert own.ended(run).state is State.DEAD
    wait_until(lambda: f"the letter of {run.run_id}, which is DEAD, waits" in worker.log, "it does not say that it has no place", SOON_S)
    junk_place = own.log.topics.place(topics.TASK, "junk")
    raw.write(own.log, junk_place, b"junk", b"no task")
    assert own.ended(submit(own.log, "beside it", epochs=1)).state is State.SUCCEEDED
    assert not any(isinstance(record, control.Dead) for record in own.records(run))
    open_topics(own.log.cluster, create=True)
    wait_until(lambda: any(isinstance(record, control.Dead) for record in own.records(run)), "no Dead in run_control", SOON_S)
    assert own.letters(run.run_id)
    assert worker.process.poll() is None
