"""`runs`, `show`, `follow`, `stop`, `cancel` on runs that are played into real topics."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.errors import NotYourRun, RunFailed, RunNotFound
from kafka_jupyter.protocol import control
from kafka_jupyter.settings import Settings
from tests.support.cli import cli, environment
from tests.support.local import environment as child_environment
from tests.support.playing import Player

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
    assert said.code == 1
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
