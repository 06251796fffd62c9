"""`runs`, `show`, `follow`, `stop`, `cancel` on runs that are played into real topics."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import TrainingRun
from kafka_jupyter.errors import NotYourRun, RunFailed, RunNotFound
from kafka_jupyter.protocol import codec, control, topics
from kafka_jupyter.protocol.letters import DeadLetter
from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, LogLine
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.runs.view import card_state
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from tests.support.cli import cli, documented, environment
from tests.support.local import environment as child_environment
from tests.support.playing import Player, task
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def log(settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        yield log


def test_runs_are_listed_newest_first_and_filtered(log: Log, settings: Settings) -> None:
    done = Player.new(log).whole()
    waiting = Player.new(log, name="wide")
    waiting.submit()
    listed = json.loads(cli("runs", "--json", settings=settings).out)
    assert [(run["run_id"], run["state"]) for run in listed] == [(waiting.run_id, "QUEUED"), (done.run_id, "SUCCEEDED")]
    said = cli("runs", "--state", "succeeded", settings=settings)
    assert done.run_id in said.out
    assert "3 epochs" in said.out
    assert waiting.run_id not in said.out
    assert "place 1 in the queue" in cli("runs", "--state", "failed,queued", settings=settings).out


def test_runs_are_narrowed_down_and_put_in_order(log: Log, settings: Settings) -> None:
    mine, theirs, other = Player.new(log, name="b"), Player.new(log, name="a", owner="grace@test"), Player.new(log, name="c").whole()
    for run in (mine, theirs):
        run.submit()

    def ids(*words: str) -> list[str]:
        return [run["run_id"] for run in json.loads(cli("runs", "--json", *words, settings=settings).out)]

    assert ids() == [theirs.run_id, mine.run_id, other.run_id]
    assert ids("--sort", "oldest", "-n", "2") == [other.run_id, mine.run_id]
    assert ids("--sort", "name", "--state", "active") == [theirs.run_id, mine.run_id]
    assert ids("--sort", "state", "--mine") == [mine.run_id, other.run_id]
    assert ids("--owner", "ada@test", "--state", "running,ended") == [other.run_id]


def test_a_running_run_is_listed_with_how_far_it_is_and_its_best_metric(log: Log, settings: Settings) -> None:
    run = Player.new(log, epochs=4)
    run.submit()
    run.claim()
    run.start()
    for epoch, accuracy in enumerate((0.7, 0.9, 0.8)):
        run.epoch(epoch, loss=1 / (epoch + 1), val_accuracy=accuracy)
    (line,) = cli("runs", settings=settings).out.splitlines()[1:]
    assert re.search(r"RUNNING +epoch 3 of 4.* +val_accuracy 0\.9000 @2 +box-1 +\d+ s ago +ada@test", line)
    (found,) = json.loads(cli("runs", "--json", settings=settings).out)
    progress = found["progress"]
    assert (progress["epochs_done"], progress["fraction"]) == (3, 0.75)
    assert progress["metrics"] == {"loss": 1 / 3, "val_accuracy": 0.8}
    assert progress["best"] == {"metric": "val_accuracy", "value": 0.9, "epoch": 2}
    assert set(progress) == documented("progress")
    assert set(progress["best"]) == documented("best")


def test_what_a_command_prints_as_json_has_the_keys_of_the_document(log: Log, settings: Settings) -> None:
    card = set(card_state(RunState(run_id="digits-1")))
    with contextlib.closing(open_store(settings, log)) as store:
        store.put("weights", 5, iter([b"bytes"]))
    done, dead, queued = Player.new(log), failed(log), Player.new(log)
    done.submit()
    done.claim()
    done.start()
    done.rows(EpochEnded(done.next_seq(), 0), BatchProgress(done.next_seq(), 1, 2), LogLine(done.next_seq(), 1, 2, "x"))
    done.succeed()
    queued.submit()
    log.send_worker(WorkerInfo("box-1-x", "box-1"))
    letter = DeadLetter(dead.run_id, "poison", task=codec.encode(task(dead.run_id)).decode())
    log.send(topics.TASK_DLQ, dead.run_id, msgspec.json.encode(letter), "dead_letter")
    assert log.producer.flush(10) == 0

    def printed(*words: str) -> Any:
        said = cli(*words, "--json", settings=settings)
        assert said.error is None, words
        return json.loads(said.out)

    assert set(printed("runs")[0]) == card | {"progress"}
    shown = printed("show", done.run_id)
    assert set(shown) == documented("show")
    assert set(shown["run"]) == card | {"progress"}
    for row, kind in zip(shown["rows"], ("an epoch", "a batch", "a line"), strict=True):
        assert set(row) == documented(f"a row that is {kind}")
    asked = printed("pause", queued.run_id)
    assert (set(asked), asked["request"], asked["asked"], asked["state"]) == (documented("pause"), "pause", True, "QUEUED")
    asked = printed("cancel", dead.run_id)
    assert (set(asked), asked["request"], asked["asked"], asked["state"]) == (documented("cancel"), "cancel", False, "FAILED")
    changed = printed("ctl", queued.run_id, "lr=0.5")
    assert set(changed) == documented("ctl")
    assert (changed["settings"], changed["applied"]) == ({"learning_rate": 0.5}, None)
    retried = printed("retry", dead.run_id)
    assert (set(retried), retried["retry_of"]) == (documented("retry"), dead.run_id)
    assert set(printed("wait", done.run_id)) == card | {"progress"}
    assert set(printed("dlq", "ls")[0]) == set(printed("dlq", "show", dead.run_id)) == documented("dlq ls")
    redriven = printed("dlq", "redrive", dead.run_id)
    assert (set(redriven), redriven["redrive_of"]) == (documented("dlq redrive"), dead.run_id)
    assert {frozenset(worker) for worker in printed("workers")} == {frozenset(documented("workers"))}
    stored = printed("store", "ls")
    assert set(stored[0]) == documented("store ls")
    assert printed("store", "rm", stored[0]["id"]) == {"deleted": [stored[0]["id"]]}
    differing = json.loads(cli("topics", "check", "--replication", "2", "--json", settings=settings).out)
    assert set(differing) == documented("topics check")
    assert set(differing["differences"][0]) == documented("differences")
    assert set(printed("status")) == documented("status")
    assert set(printed("doctor")[0]) == documented("doctor")
    assert set(printed("version")) == documented("version")
    assert set(printed("down")) == documented("down")


def test_the_state_that_is_printed_is_the_one_in_which_it_was_asked(log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    queued, pause = Player.new(log), TrainingRun.pause
    queued.submit()

    def read_back(run: TrainingRun, *, force: bool = False) -> None:
        pause(run, force=force)
        wait_until(lambda: run.state == "PAUSED", "its own request was never read")

    monkeypatch.setattr(TrainingRun, "pause", read_back)
    assert json.loads(cli("pause", queued.run_id, "--json", settings=settings).out)["state"] == "QUEUED"


def test_a_run_is_shown_with_every_epoch(log: Log, settings: Settings) -> None:
    run = Player.new(log).whole()
    text = cli("show", run.run_id[:-4], settings=settings).out
    assert f"{run.run_id} SUCCEEDED, 3 epochs" in text
    assert [line.split() for line in text.splitlines()[-4:]] == [["epoch", "loss"], ["1", "1"], ["2", "0.5"], ["3", "0.3333"]]
    shown = json.loads(cli("show", "digits", "--json", settings=settings).out)
    assert shown["run"]["state"] == "SUCCEEDED"
    assert [row["epoch"] for row in shown["rows"] if row["type"] == "epoch"] == [0, 1, 2]


def test_a_failed_run_is_shown_with_its_traceback(log: Log, settings: Settings) -> None:
    run = failed(log)
    text = cli("show", run.run_id, settings=settings).out
    assert "ValueError: bad loss" in text
    assert '  File "train.py"' in text


def test_following_prints_what_happens_until_the_end(log: Log, settings: Settings) -> None:
    run = Player.new(log)
    run.submit()
    command = [sys.executable, "-u", "-m", "kafka_jupyter.cli", "follow", run.run_id]
    env = child_environment(settings) | environment(settings)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "QUEUED\n"
        assert process.stdout.readline().startswith("place 1 in the queue. Waiting for a worker: none is there.")
        run.claim()
        run.start()
        run.line("hello from the worker")
        run.epoch(0, loss=0.5)
        run.succeed()
        said = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert "hello from the worker" in said
    assert "epoch 1  loss=0.5" in said
    assert said[-1] == "SUCCEEDED"


def test_following_a_failed_run_ends_with_its_error(log: Log, settings: Settings) -> None:
    said = cli("follow", failed(log).run_id, settings=settings)
    assert said.code == 10
    assert isinstance(said.error, RunFailed)
    assert "bad loss" in str(said.error)


def test_a_waiting_run_is_cancelled(log: Log, settings: Settings) -> None:
    run = Player.new(log)
    run.submit()
    assert cli("cancel", "digits", settings=settings).out == f"{run.run_id}: asked to cancel.\n"
    assert json.loads(cli("runs", "--json", settings=settings).out)[0]["state"] == "CANCELLED"
    for words in ("stop", "cancel"):
        assert cli(words, "digits", settings=settings).out == f"{run.run_id} has already CANCELLED.\n", "nothing was asked for"


def test_a_running_run_is_asked_to_stop(log: Log, settings: Settings) -> None:
    run = Player.new(log)
    run.submit()
    run.claim()
    run.start()
    assert cli("stop", run.run_id, settings=settings).out == f"{run.run_id}: asked to stop.\n"
    assert json.loads(cli("runs", "--json", settings=settings).out)[0]["state"] == "STOPPING"
    cli("cancel", run.run_id, settings=settings)
    assert cli("stop", run.run_id, settings=settings).out == f"{run.run_id} is being cancelled: nothing of it will be kept.\n"


def test_another_persons_run_needs_its_whole_id_and_force(log: Log, settings: Settings) -> None:
    run = Player.new(log)
    run.submit()
    grace = settings.replace(owner="grace@test")
    assert isinstance(cli("cancel", run.run_id, settings=grace).error, NotYourRun)
    assert isinstance(cli("cancel", run.run_id[:-4], "--force", settings=grace).error, NotYourRun)
    assert cli("cancel", run.run_id, "--force", settings=grace).code == 0


def test_an_unknown_run_is_answered_with_the_nearest(log: Log, settings: Settings) -> None:
    run = Player.new(log)
    run.submit()
    said = cli("show", "digit", "--json", settings=settings)
    assert said.code == 0, "a unique beginning is enough"
    said = cli("show", "dogits", settings=settings)
    assert isinstance(said.error, RunNotFound)
    assert run.run_id in str(said.error)


def failed(log: Log) -> Player:
    run = Player.new(log)
    run.submit()
    run.claim()
    run.start()
    traceback = 'Traceback (most recent call last):\n  File "train.py", line 1\nValueError: bad loss'
    run.say(control.Failed(**run.own(), retryable=False, reason="exception", error="ValueError", message="bad loss", traceback=traceback))
    return run
