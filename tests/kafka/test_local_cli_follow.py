"""`follow`, `wait`, `logs` as real processes: on a terminal, in a pipe, for scripts. The runs are played into real topics."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import psutil
import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.rows import EpochEnded, LogLine
from kafka_jupyter.settings import Settings
from tests.support.cli import cli, documented, environment
from tests.support.local import environment as child_environment
from tests.support.playing import Player
from tests.support.terminal import Terminal, terminal
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

COMMAND = (sys.executable, "-u", "-m", "kafka_jupyter.cli")
HOSTILE = "evil\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\nname"


@pytest.fixture(scope="module")
def log(module_settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(module_settings), create=True)) as log:
        yield log


@pytest.fixture(scope="module")
def env(module_settings: Settings) -> dict[str, str]:
    return child_environment(module_settings) | environment(module_settings)


@pytest.fixture(scope="module")
def ended(log: Log) -> dict[str, Player]:
    """A run for each way in which one can end."""
    runs = {"SUCCEEDED": Player.new(log, name="good").whole(), "FAILED": Player.new(log, name="bad")}
    failed = running(runs["FAILED"])
    failed.say(control.Failed(**failed.own(), retryable=False, reason="exception", error="ValueError", message="bad\x1b[2J loss"))
    runs["CANCELLED"] = Player.new(log, name="unwanted")
    runs["CANCELLED"].submit()
    runs["CANCELLED"].say(cancel(runs["CANCELLED"]))
    runs["DEAD"] = Player.new(log, name="dead")
    runs["DEAD"].submit()
    for _ in range(3):
        runs["DEAD"].claim()
        runs["DEAD"].start()
        runs["DEAD"].say(control.Failed(**runs["DEAD"].own(), retryable=True, reason="signal"))
    return runs


def running(player: Player) -> Player:
    player.submit()
    player.claim()
    player.start()
    return player


def cancel(player: Player) -> control.Record:
    return control.CancelRequested(run_id=player.run_id, request_id=ids.new_request_id(), by="ada@test")


def started(env: Mapping[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen((*COMMAND, *words), env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_exit_codes_say_how_a_run_ended_and_what_went_wrong(log: Log, env: Mapping[str, str], ended: Mapping[str, Player]) -> None:
    waiting = Player.new(log, name="waiting")
    waiting.submit()
    codes = {"SUCCEEDED": 0, "FAILED": 10, "CANCELLED": 11, "DEAD": 12}
    cases: dict[tuple[str, ...], int] = {(word, ended[end].run_id): code for end, code in codes.items() for word in ("follow", "wait")}
    cases |= {(word, waiting.run_id, "--timeout", "0.2"): 124 for word in ("follow", "wait")}
    cases |= {("show", "nothing-like-it"): 3, ("pause", ended["SUCCEEDED"].run_id): 5, ("runs", "--state", "fast"): 2}
    processes = {words: started(env, *words) for words in cases}
    said = {words: (*process.communicate(timeout=60), process.returncode) for words, process in processes.items()}
    assert {words: code for words, (_, _, code) in said.items()} == cases
    for words in (("follow", ended["FAILED"].run_id), ("wait", ended["FAILED"].run_id)):
        assert re.fullmatch(r"kafka-jupyter: Run .* FAILED .*: ValueError: bad loss\. .*\n", said[words][1])
    assert "it goes on (queued)" in said["wait", waiting.run_id, "--timeout", "0.2"][1]
    assert said["wait", ended["SUCCEEDED"].run_id][0] == f"{ended['SUCCEEDED'].run_id} SUCCEEDED, 3 epochs, loss 0.1\n"


def test_on_a_terminal_a_run_is_a_picture_that_moves_and_stays(log: Log, env: Mapping[str, str]) -> None:
    player = Player.new(log, name=HOSTILE, epochs=4)
    player.submit()
    with terminal((*COMMAND, "follow", player.run_id), env) as shown:
        shown.shows(" QUEUED ", "in the queue", "Waiting for a worker: none is there.")
        assert not shown.screen.cursor
        before, at = shown.screen.drawn, time.monotonic()
        player.claim()
        player.start()
        player.rows(LogLine(player.next_seq(), 0, 0, f"hello from the worker {HOSTILE}"))
        for epoch in range(3):
            player.rows(EpochEnded(player.next_seq(), epoch, 10, {"loss": 1 / (epoch + 1), "val_loss": 2.0 + epoch}, 0.5, 0))
        shown.shows(" RUNNING ", "epoch 3 of 4", " 75%", "│ hello from the worker evil  name")
        player.succeed()
        assert shown.end() == 0
        drawn, seconds = shown.screen.drawn - before, time.monotonic() - at
    assert drawn <= 4 * seconds + 1, "it was drawn more than four times a second"
    assert shown.screen.cursor
    assert [part for part in ("[2J", "]0;", "\x9b", "\u202e") if part in shown.screen.raw] == [], "what others wrote steers nothing"
    lines = shown.screen.text.splitlines()
    assert lines[0] == f" SUCCEEDED  {player.run_id} evil  name  4 epochs in 0:0{lines[0][-1]}"
    assert lines[1] == "━" * 60 + " 100%"
    assert [line.split() for line in lines[3:]] == [
        ["metric", "last", "best"],
        ["loss", "0.3333", "0.3333", "@3"],
        ["val_loss", "4.0000", "2.0000", "★", "@1"],
        ["│", "hello", "from", "the", "worker", "evil", "name"],
    ]


def test_ctrl_c_ends_the_showing_only_and_says_how_to_come_back(log: Log, env: Mapping[str, str]) -> None:
    player = running(Player.new(log, name="long"))
    with terminal((*COMMAND, "follow", player.run_id), env) as shown:
        shown.shows(" RUNNING ")
        narrower(shown)
        shown.press("\x03")
        assert shown.end() == 130
        told = f"The run goes on. Come back with: kafka-jupyter follow long-{player.run_id[5:9]}"
        assert shown.screen.text.replace("\n", "").endswith(told)
    assert shown.screen.cursor
    assert json.loads(cli("show", player.run_id, "--json", settings=log.cluster.settings).out)["run"]["state"] == "RUNNING"


def test_ctrl_z_gives_the_shell_its_cursor_and_a_new_picture_comes_afterwards(log: Log, env: Mapping[str, str]) -> None:
    player = running(Player.new(log, name="resting"))
    with terminal((*COMMAND, "follow", player.run_id), env) as shown:
        shown.shows(" RUNNING ")
        shown.press("\x1a")
        wait_until(lambda: shown.read() and psutil.Process(shown.process.pid).status() == psutil.STATUS_STOPPED, "it did not rest")
        shown.read()
        assert shown.screen.cursor
        assert shown.screen.text.count(" RUNNING ") == 1
        player.succeed()
        shown.process.send_signal(signal.SIGCONT)
        assert shown.end() == 0
    assert re.findall(r"^ ([A-Z]+) ", shown.screen.text, re.MULTILINE) == ["RUNNING", "SUCCEEDED"], "the old picture stays"
    assert shown.screen.cursor


def narrower(shown: Terminal) -> None:
    """The terminal becomes narrower in the middle: there is one picture, and it fits."""
    shown.resize(24, 30)
    drawn = shown.screen.drawn
    wait_until(lambda: shown.read() and shown.screen.drawn > drawn and "worker box-1" in shown.screen.text, "it was not drawn anew")
    lines = shown.screen.text.splitlines()
    assert [line[:9] for line in lines if "RUNNING" in line] == [" RUNNING "]
    assert max(map(len, lines)) <= 24


def test_a_terminal_has_its_cursor_back_when_the_showing_is_ended_from_outside(log: Log, env: Mapping[str, str]) -> None:
    player = running(Player.new(log))
    with terminal((*COMMAND, "follow", player.run_id), env) as shown:
        shown.shows(" RUNNING ")
        shown.process.terminate()
        assert shown.end() == 128 + signal.SIGTERM
    assert shown.screen.cursor


def test_a_list_of_runs_can_be_watched(log: Log, env: Mapping[str, str]) -> None:
    player = running(Player.new(log, name="watched"))
    with terminal((*COMMAND, "runs", "--name", "watched", "--watch"), env) as shown:
        shown.shows(player.run_id, "RUNNING")
        player.say(control.Cancelled(**player.own()))
        shown.shows("CANCELLED")
        assert shown.screen.text.count(player.run_id) == 1, "the list takes the place of the one before"
        shown.press("\x03")
        assert shown.end() == 130


def test_in_a_pipe_events_are_lines_of_json_as_documented(log: Log, env: Mapping[str, str]) -> None:
    player = Player.new(log, name=HOSTILE)
    player.submit()
    with started(env, "follow", player.run_id, "--json") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        player.claim()
        player.start()
        player.line(HOSTILE)
        player.epoch(0, loss=0.5)
        player.say(control.Failed(**player.own(), retryable=False, reason="exception", error="ValueError", message="bad"))
        text = first + process.stdout.read()
    assert process.returncode == 10
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    told = [json.loads(line) for line in text.splitlines()]
    assert {event["event"]: set(event) for event in told} == {kind: documented(kind) for kind in ("state", "line", "epoch")}
    assert [event["state"] for event in told if event["event"] == "state"][-1] == "FAILED"
    assert told[0]["queue"] >= 1
    assert told[0]["waiting"].startswith("Waiting for a worker")
    assert told[-1]["error"] == {"error": "ValueError", "message": "bad"}
    assert [event["text"] for event in told if event["event"] == "line"] == [HOSTILE], "in JSON nothing is lost"


def test_logs_are_what_the_training_printed(log: Log, env: Mapping[str, str]) -> None:
    player = running(Player.new(log, name="talking"))
    player.rows(LogLine(player.next_seq(), 0, 0, "first", at_ms=1_800_000_000_123))
    player.rows(LogLine(player.next_seq(), 0, 7, "before it crashed", "stderr"))
    player.say(control.Failed(**player.own(), retryable=True, reason="signal"))
    player.claim()
    player.start(epoch=0, step=5)
    player.rows(LogLine(player.next_seq(), 0, 6, "\x1b[1mbold\x1b[0m\u202e again"))
    settings = log.cluster.settings

    def logs(*words: str) -> list[str]:
        return cli("logs", player.run_id, *words, settings=settings).out.splitlines()

    assert logs() == ["first", "bold again"], "what a later attempt printed again is not shown twice"
    assert re.fullmatch(r"2027-01-1\d \d\d:\d\d:00\.123  first", logs("-t")[0])
    told = [json.loads(line) for line in logs("--json", "--attempt", "1")]
    assert [(line["text"], line["stream"]) for line in told] == [("first", "stdout"), ("before it crashed", "stderr")]
    assert set(told[0]) == documented("line")
    said = cli("logs", player.run_id, "--attempt", "3", settings=settings)
    assert (said.code, "has had 2 attempts" in " ".join(said.out.split())) == (2, True)

    with started(env, "logs", player.run_id, "-f", "-n", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "bold again\n"
        player.line("and on")
        assert process.stdout.readline() == "and on\n"
        player.succeed()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_a_pipe_that_is_closed_early_ends_it_in_silence(log: Log, env: Mapping[str, str]) -> None:
    player = running(Player.new(log, name="much"))
    player.rows(*(LogLine(player.next_seq(), 0, 0, f"line {i} {'x' * 1000}") for i in range(300)))
    for words in ("", "-f -n 1"):  # that one has nothing more to say, and its run does not end
        command = f'set -o pipefail; "$0" -m kafka_jupyter.cli logs {player.run_id} {words} | head -1'
        done = subprocess.run(["bash", "-c", command, sys.executable], env=dict(env), capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout[:5], done.stderr) == (0, "line ", "")
