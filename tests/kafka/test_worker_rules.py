"""What a worker does with tasks that it cannot read, and with runs that are about to leave the log."""

from __future__ import annotations

import contextlib
import shutil

import msgspec

from kafka_jupyter.protocol import codec, control, topics
from kafka_jupyter.protocol.parts import InlineBytes
from kafka_jupyter.protocol.task import Requirements, Task
from kafka_jupyter.runs.state import State
from kafka_jupyter.store import open_store
from tests.support import raw
from tests.support.scene import Scene
from tests.support.training import Submission, mlp, submit, task_of
from tests.support.waiting import wait_until


def submit_raw(scene: Scene, task: Task, value: bytes) -> Submission:
    """Writes these bytes in place of the task, and its Submitted."""
    topic, partition = scene.log.topics.place(topics.TASK, task.run_id)
    offset = raw.write(scene.log, (topic, partition), task.run_id.encode(), value)
    scene.log.write_control(control.Submitted(run_id=task.run_id, task=control.TaskPlace(topic, partition, offset), owner=task.owner))
    return Submission(scene.log, task.run_id, task)


def test_a_task_of_a_newer_version_waits_for_a_newer_worker_and_says_so(shared: Scene) -> None:
    shared.workers_there(1)
    task = task_of(mlp(), "newer", 64, 1)
    run = submit_raw(shared, task, msgspec.json.encode(msgspec.to_builtins(task) | {"v": 99}))
    wait_until(lambda: shared.state(run).last_release is not None, "it was not given back")
    after = submit(shared.log, epochs=1)
    assert shared.ended(after).state is State.SUCCEEDED  # so whoever wanted the other one again has had the time
    state = shared.state(run)
    assert (state.state, state.last_n) == (State.QUEUED, 1)
    (released,) = (record for record in shared.records(run) if isinstance(record, control.Released))
    assert released.reason == "unfit"
    waiting = str(shared.follower.card(run.run_id)["waiting"])
    assert waiting.startswith("Waiting for another worker")
    assert "newer kafka_jupyter (task version 99)" in waiting
    assert shared.letters(run.run_id) == []


def test_a_task_that_cannot_be_decoded_is_claimed_and_failed_and_goes_to_the_dlq(shared: Scene) -> None:
    run = submit_raw(shared, task_of(mlp(), "broken", 64, 1), b"\xff\x00 no task")
    state = shared.ended(run)
    assert (state.state, state.last_n) == (State.FAILED, 1)
    assert isinstance(state.end, control.Failed)
    assert (state.end.reason, state.end.error) == ("refused", "BadRecord")
    wait_until(lambda: shared.letters(run.run_id), "no letter in task_dlq")


def test_a_worker_that_has_no_place_for_the_data_leaves_the_run_to_another(own: Scene) -> None:
    broken = own.workers.start("broken")
    own.workers_there(1)
    cache = broken.folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("a file, where the artifacts should go")
    task = task_of(mlp(), "placeless", 64, 1)
    x, *others = task.data.leaves
    assert isinstance(x, InlineBytes)
    with contextlib.closing(open_store(own.settings, own.log)) as store:
        stored = store.put("x", len(x.data), [x.data])
    task = msgspec.structs.replace(task, data=msgspec.structs.replace(task.data, leaves=[stored, *others]))
    run = submit_raw(own, task, codec.encode(task))
    wait_until(lambda: own.state(run).last_release is not None, "it was not given back")
    assert own.state(run).state is State.QUEUED
    assert str(own.follower.card(run.run_id)["waiting"]).startswith("Waiting for another worker")
    own.workers.start("sound")
    state = own.ended(run)
    assert (state.state, state.last_n, state.last_failure) == (State.SUCCEEDED, 2, None)


def test_a_run_that_is_about_to_leave_the_log_is_ended(own: Scene) -> None:
    needy = Requirements(keras="2.4.0")  # nobody is going to claim it
    old, young = (task_of(mlp(), name, 64, 1, requirements=needy) for name in ("old", "young"))
    runs = {}
    for task, keep_days in ((old, 1.9), (young, 30.0)):  # a run is ended 2 days before its log goes
        place = own.log.write_task(task)
        own.log.write_control(control.Submitted(run_id=task.run_id, task=place, requirements=needy, keep_days=keep_days))
        runs[task.name] = Submission(own.log, task.run_id, task)
    own.workers.start()
    state = own.ended(runs["old"])
    assert state.state is State.FAILED
    assert isinstance(state.end, control.TooOld)
    assert "the run got older than the log is kept" in str(own.follower.card(old.run_id)["error"])
    assert own.state(runs["young"]).state is State.QUEUED
