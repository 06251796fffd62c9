"""What people ask of a run in each of its states, of runs that are played: pause, resume, settings, cancel, retry."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import kafka_jupyter
from kafka_jupyter import errors
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client, TrainingRun, retry
from kafka_jupyter.protocol import control, ids, topics
from kafka_jupyter.protocol.parts import InlineBytes
from kafka_jupyter.protocol.task import ResumePoint, Task
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.settings import Settings
from tests.support.playing import Player
from tests.support.playing import task as made
from tests.support.training import digits, mlp
from tests.support.waiting import wait_until


def attached(client: Client, player: Player) -> TrainingRun:
    return client.attach(player.run_id)


def state_of(client: Client, run_id: str) -> RunState:
    return wait_until(lambda: client.connection().follower().state(run_id), f"{run_id} never appeared")


def becomes(run: TrainingRun, state: str) -> None:
    wait_until(lambda: run.state == state, f"{run!r} never became {state}")


def queued(log: Log) -> Player:
    player = Player.new(log)
    player.submit()
    return player


def claimed(log: Log) -> Player:
    player = queued(log)
    player.claim()
    return player


def running(log: Log) -> Player:
    player = claimed(log)
    player.start()
    return player


def paused(log: Log) -> Player:
    player = queued(log)
    player.say(control.PauseRequested(run_id=player.run_id, request_id=ids.new_request_id()))
    return player


def lost(log: Log) -> Player:
    player = claimed(log)
    offset = player.start()
    player.say(control.Expired(run_id=player.run_id, n=1, after=offset))
    return player


def failed(log: Log, **fields: Any) -> Player:
    player = running(log)
    fail(player, **fields)
    return player


def fail(player: Player, **fields: Any) -> None:
    known = {"retryable": False, "reason": "exception", "error": "ValueError", "message": "bad loss"}
    player.say(control.Failed(**player.own(), **{**known, **fields}))


def checkpoint(player: Player, epoch: int, step: int = 0, **parts: bytes) -> None:
    named = {name: InlineBytes(data) for name, data in (parts or {"state": b"weights"}).items()}
    player.say(control.Checkpointed(**player.own(), epoch=epoch, step=step, parts=named, files={"a.csv": InlineBytes(b"1,2")}))


def change(player: Player, rate: float, epoch: int, step: int) -> None:
    asked = {"request_id": ids.new_request_id(), "settings": {"learning_rate": rate}}
    player.say(control.SettingsRequested(run_id=player.run_id, **asked))
    player.say(control.Applied(**player.own(), **asked, epoch=epoch, step=step))


def rates(client: Client, run: TrainingRun) -> list[float]:
    return [request.settings["learning_rate"] for request in state_of(client, run.id).settings]


def tasks(log: Log, run_id: str) -> list[Task]:
    place = log.topics.place(topics.TASK, run_id)
    read = [log.decode(message) for message in log.read_range(place, 0, None)]
    return [record for record in read if isinstance(record, Task) and record.run_id == run_id]


# --- cancel, pause, resume, settings


@pytest.mark.parametrize("before", [queued, paused, lost])
def test_a_run_that_nobody_trains_is_cancelled_by_the_request_itself(client: Client, log: Log, before: Any) -> None:
    run = attached(client, before(log))
    run.cancel()
    becomes(run, "CANCELLED")
    assert run.card()["process"] == ("cut off" if before is lost else "none")


@pytest.mark.parametrize("before", [claimed, running])
def test_a_run_that_somebody_trains_is_cancelled_when_its_process_is_gone(client: Client, log: Log, before: Any) -> None:
    player = before(log)
    run = attached(client, player)
    run.cancel()
    becomes(run, "CANCELLING")
    player.say(control.Cancelled(**player.own()))
    becomes(run, "CANCELLED")
    assert run.card()["process"] == "gone"
    assert "its process is gone" in str(run.error)


def test_a_cancelled_run_whose_worker_was_cut_off_says_so(client: Client, log: Log) -> None:
    player = claimed(log)
    offset = player.start()
    run = attached(client, player)
    run.cancel()
    player.say(control.Expired(run_id=player.run_id, n=1, after=offset))
    becomes(run, "CANCELLED")
    assert run.card()["process"] == "cut off"
    assert "its worker was cut off and its lease ran out" in str(run.error)


@pytest.mark.parametrize(("before", "then"), [(queued, "PAUSED"), (lost, "PAUSED"), (claimed, "PAUSING"), (running, "PAUSING")])
def test_a_run_can_be_paused_and_resumed(client: Client, log: Log, before: Any, then: str) -> None:
    run = attached(client, before(log))
    earlier = str(run.state)
    run.pause()
    becomes(run, then)
    run.resume()
    becomes(run, "QUEUED" if then == "PAUSED" else earlier)


def test_the_learning_rate_is_asked_for_and_answered_with_its_place(client: Client, log: Log) -> None:
    player = running(log)
    run = attached(client, player)
    assert run.set(learning_rate=1e-4) is None, "who does not wait hears nothing"
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(run.set(learning_rate=0.5, timeout=20)))
    waiter.start()
    state = wait_until(lambda: s if len((s := state_of(client, run.id)).settings) == 2 else None, "the requests were never read")
    assert [request.settings for request in state.settings] == [{"learning_rate": 1e-4}, {"learning_rate": 0.5}]
    request_id = state.settings[1].request_id
    zombie = player.own() | {"nonce": "of an attempt that was cut off"}
    player.say(control.Applied(**zombie, request_id=request_id, settings={"learning_rate": 0.5}, epoch=9, step=9))
    player.say(control.Applied(**player.own(), request_id=request_id, settings={"learning_rate": 0.5}, epoch=3, step=17))
    waiter.join(20)
    (answer,) = answers
    assert (answer.kind, answer.epoch, answer.step, answer.metrics) == ("applied", 3, 17, {"learning_rate": 0.5})
    player.succeed()
    assert [event.step for event in run.events() if event.kind == "applied"] == [17]


def test_a_worker_that_cannot_set_the_rate_is_heard(client: Client, log: Log) -> None:
    player = running(log)
    run = attached(client, player)
    refused: list[str] = []

    def ask() -> None:
        try:
            run.set(learning_rate=0.5, timeout=20)
        except errors.BadWish as no:
            refused.append(str(no))

    waiter = threading.Thread(target=ask)
    waiter.start()
    state = wait_until(lambda: s if (s := state_of(client, run.id)).settings else None, "the request was never read")
    answer = {"refused": "a schedule rules"}
    player.say(control.Applied(**player.own(), request_id=state.settings[0].request_id, settings=answer))
    waiter.join(20)
    assert "a schedule rules" in refused[0]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), True, "fast"])
def test_what_is_no_learning_rate_is_refused_at_once(client: Client, log: Log, value: Any) -> None:
    run = attached(client, queued(log))
    with pytest.raises(errors.BadWish, match="must be a number, at least 0"):
        run.set(learning_rate=value)
    assert not state_of(client, run.id).settings


def wishes(run: TrainingRun) -> list[Any]:
    return [run.pause, run.resume, lambda: run.set(learning_rate=0.1)]


def test_a_run_that_has_ended_can_neither_be_paused_nor_changed(client: Client, log: Log) -> None:
    run = attached(client, Player.new(log).whole())
    for wish in wishes(run):
        with pytest.raises(errors.RunEnded, match="SUCCEEDED"):
            wish()
    run.stop()
    run.cancel()
    assert run.state == "SUCCEEDED"


def test_a_run_that_is_about_to_end_can_neither_be_paused_nor_changed(client: Client, log: Log) -> None:
    run = attached(client, running(log))
    run.stop()
    becomes(run, "STOPPING")
    for wish in wishes(run):
        with pytest.raises(errors.RunEnding, match="STOPPING"):
            wish()


def test_another_persons_run_is_steered_with_force_only(settings: Settings, client: Client, log: Log) -> None:
    grace = Client(settings.replace(owner="grace@test"))
    player = queued(log)
    run = grace.attach(player.run_id)
    for wish in wishes(run):
        with pytest.raises(errors.NotYourRun, match="ada@test"):
            wish()
    with pytest.raises(errors.NotYourRun):
        grace.attach(player.run_id[:-2]).pause(force=True)
    run.pause(force=True)
    becomes(run, "PAUSED")
    run.cancel(force=True)
    becomes(run, "CANCELLED")
    with pytest.raises(errors.NotYourRun):
        run.retry()
    assert run.retry(force=True).card()["owner"] in ("ada@test", "grace@test")


def test_a_cell_that_waits_for_a_paused_run_says_how_to_go_on(settings: Settings, client: Client, capsys: Any) -> None:
    x, y = digits()
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            with kafka_jupyter.train("rests", settings=settings):
                mlp().fit(x[:64], y[:64], epochs=1, verbose=0)
        except errors.RunCancelled as cancelled:
            ended.append(cancelled)

    waiter = threading.Thread(target=wait)
    waiter.start()
    said = ""

    def told() -> str:
        nonlocal said
        said += capsys.readouterr().err
        return said

    run = wait_until(lambda: next(iter(client.runs(name="rests")), None), "it was never submitted", within=30)
    run.pause()
    wait_until(lambda: f"{run.short} is PAUSED: `%kafka_resume {run.short}` goes on." in told(), "the cell does not say it")
    run.cancel()
    waiter.join(30)
    assert "before it had begun" in str(ended[0])


# --- retry


@pytest.mark.parametrize("before", [queued, running, paused, lost])
def test_a_run_that_has_not_ended_cannot_be_retried(client: Client, log: Log, before: Any) -> None:
    run = attached(client, before(log))
    with pytest.raises(errors.CannotRetry, match=f"{run.state}: only a run that is FAILED, CANCELLED or DEAD"):
        run.retry()


def test_a_run_that_succeeded_cannot_be_retried(client: Client, log: Log) -> None:
    with pytest.raises(errors.CannotRetry, match="SUCCEEDED"):
        attached(client, Player.new(log).whole()).retry()


def test_a_failed_run_is_retried_from_the_beginning_where_it_has_no_checkpoint(client: Client, log: Log) -> None:
    player = failed(log)
    again = attached(client, player).retry()
    becomes(again, "QUEUED")
    assert again.name == "digits"
    assert again.id.startswith("digits-")
    assert again.id != player.run_id
    state = wait_until(lambda: s if (s := state_of(client, again.id)).submitted else None, "it was never announced")
    assert state.submitted is not None
    assert state.submitted.retry_of == player.run_id
    (task,) = tasks(log, again.id)
    assert (task.retry_of, task.resume, task.owner) == (player.run_id, None, "ada@test")


def test_a_retry_goes_on_from_the_newest_checkpoint(client: Client, log: Log) -> None:
    player = running(log)
    for epoch in (1, 2):
        checkpoint(player, epoch, state=b"weights %d" % epoch)
    change(player, 1e-4, epoch=2, step=3)
    fail(player)
    first = attached(client, player).retry()
    wait_until(lambda: rates(client, first) == [1e-4], "it does not go on with the rate behind the checkpoint")
    (task,) = tasks(log, first.id)
    assert task.resume == ResumePoint(2, 0, InlineBytes(b"weights 2"), {"a.csv": InlineBytes(b"1,2")})
    becomes(first, "QUEUED")
    first.cancel()
    becomes(first, "CANCELLED")
    second = first.retry()
    (task,) = tasks(log, second.id)
    assert task.resume is not None, "a run that has made none itself goes on from the one it was given"
    assert (task.retry_of, task.resume.epoch) == (first.id, 2)
    wait_until(lambda: rates(client, second) == [1e-4], "what the first retry had not begun with is lost")
    assert attached(client, player).retry() == first
    assert first.retry(learning_rate=1e-2) == second
    wait_until(lambda: rates(client, second) == [1e-4, 1e-2], "the rate that was asked for is not the last")
    first.retry()
    wait_until(lambda: rates(client, second) == [1e-4, 1e-2], "what nobody asked for came again")


def test_two_people_and_a_double_click_make_one_run(settings: Settings, client: Client, log: Log) -> None:
    player = failed(log)
    other = Client(settings)
    runs: list[TrainingRun] = []
    people = [threading.Thread(target=lambda c=c: runs.append(c.attach(player.run_id).retry())) for c in (client, other, client)]
    for person in people:
        person.start()
    for person in people:
        person.join(30)
    assert len(runs) == 3
    assert len({run.id for run in runs}) == 1
    becomes(runs[0], "QUEUED")
    assert attached(client, player).retry() == runs[0]
    written = len(tasks(log, runs[0].id))
    attached(client, player).retry()
    assert len(tasks(log, runs[0].id)) == written, "what is in the log already is not written again"
    assert [run.id for run in client.runs(name="digits")] == [runs[0].id, player.run_id]


def test_a_retry_may_be_another_training(client: Client, log: Log) -> None:
    player = failed(log)
    edits = {"epochs": 9, "batch_size": 64, "device": "gpu", "memory": 1 << 33, "priority": "high", "labels": {"why": "more"}}
    again = attached(client, player).retry(learning_rate=1e-4, **edits)
    state = wait_until(lambda: s if (s := state_of(client, again.id)).settings else None, "the settings were never read")
    assert state.submitted is not None
    assert (state.submitted.epochs, state.submitted.priority, state.submitted.labels) == (9, "high", {"why": "more"})
    assert (state.submitted.requirements.device, state.submitted.requirements.memory) == ("gpu", 1 << 33)
    assert [request.settings for request in state.settings] == [{"learning_rate": 1e-4}]
    (task,) = tasks(log, again.id)
    assert (task.fit.epochs, task.fit.batch_size) == (9, 64)
    attached(client, player).retry(learning_rate=1e-4, **edits)
    with pytest.raises(errors.RetriedAlready, match=again.id):
        attached(client, player).retry()
    again.cancel()
    becomes(again, "CANCELLED")
    assert rates(client, again) == [1e-4], "the same wish is one"
    assert attached(client, player).retry(learning_rate=1e-4, **edits) == again
    with pytest.raises(errors.RetriedAlready, match=rf"{again.id}, which is over \(CANCELLED\).*retry {again.id} itself"):
        attached(client, player).retry(learning_rate=1e-5, **edits)
    assert rates(client, again) == [1e-4]


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        ({"batch_size": 64}, "in the middle of epoch 2, whose first 5 batches are done"),
        ({"epochs": 1}, "goes on behind epoch 1"),
        ({"epochs": 0}, "at least 1"),
        ({"device": "tpu"}, "one of any, gpu"),
        ({"priority": "urgent"}, "one of high, normal, low"),
        ({"learning_rate": -1.0}, "at least 0"),
    ],
)
def test_what_a_retry_cannot_be_given_is_refused_before_anything_is_sent(client: Client, log: Log, edits: Any, why: str) -> None:
    player = running(log)
    checkpoint(player, 1, 5)
    fail(player)
    run = attached(client, player)
    with pytest.raises(errors.BadWish, match=why):
        run.retry(**edits)
    assert tasks(log, retry.id_of(state_of(client, run.id))) == []


def test_a_run_whose_task_has_left_the_log_says_so(client: Client, log: Log) -> None:
    player = Player.new(log)
    player.place = control.TaskPlace(*log.topics.place(topics.TASK, player.run_id), 12345)
    player.claim()
    fail(player)
    with pytest.raises(errors.TaskGone, match="has left the log"):
        attached(client, player).retry()


def test_a_checkpoint_too_large_for_its_task_goes_to_the_store(client: Client, log: Log) -> None:
    player = Player.new(log)
    place = log.write_task(made(player.run_id, padding="x" * (450 << 10)))
    player.place = place
    player.say(control.Submitted(run_id=player.run_id, task=place, name="digits", owner="ada@test", epochs=3))
    player.claim()
    player.start()
    weights = bytes(60 << 10)
    checkpoint(player, 1, state=weights)
    fail(player)
    again = attached(client, player).retry()
    (task,) = tasks(log, again.id)
    assert task.resume is not None
    assert not isinstance(task.resume.state, InlineBytes)
    assert client.store.read(task.resume.state, "the checkpoint") == weights
    assert attached(client, player).retry() == again
