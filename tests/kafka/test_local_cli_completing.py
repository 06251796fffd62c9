"""Tab completion in a real bash, with the script that `kafka-jupyter completion bash` prints."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.cli.completing import PATIENCE_S
from kafka_jupyter.settings import Settings
from tests.support.cli import environment
from tests.support.local import environment as child_environment
from tests.support.playing import Player
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

Complete = Callable[..., list[str]]

# What bash does when a person presses Tab behind these words: it calls the function that `complete` was told.
PRESS_TAB = """
source "$SCRIPT"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
function=$(complete -p kafka-jupyter | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" kafka-jupyter
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def log(module_settings: Settings) -> Iterator[Log]:
    with contextlib.closing(Log.open(Cluster(module_settings), create=True)) as log:
        yield log


@pytest.fixture(scope="module")
def complete(module_settings: Settings, log: Log, tmp_path_factory: pytest.TempPathFactory) -> Complete:
    """`complete("follow", "dig")` → what bash offers behind `kafka-jupyter follow dig`."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "kafka-jupyter"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kafka_jupyter.cli "$@"\n')
    command.chmod(0o755)
    env = child_environment(module_settings) | environment(module_settings)
    env |= {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SCRIPT": str(folder / "script")}
    script = subprocess.run([command, "completion", "bash"], env=env, capture_output=True, text=True, timeout=60)
    assert (script.returncode, script.stderr) == (0, "")
    pathlib.Path(env["SCRIPT"]).write_text(script.stdout)

    def run(*words: str, **more: str) -> list[str]:
        line = ["bash", "--norc", "-c", PRESS_TAB, "bash", "kafka-jupyter", *words]
        done = subprocess.run(line, env=env | more, cwd=folder, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), "something was said behind the cursor"
        return [word for word in done.stdout.split("\n") if word]

    return run


def test_commands_options_and_states_are_completed(complete: Complete) -> None:
    assert complete("f") == ["follow"]
    assert complete("dlq", "re") == ["redrive"]
    assert complete("runs", "--st") == ["--state"]
    assert complete("runs", "--state", "ru") == ["running"]
    assert complete("runs", "--sort", "n") == ["newest", "name"]


def test_runs_are_completed_from_the_log_by_id_and_name(complete: Complete, log: Log) -> None:
    done, waiting = Player.new(log, name="finished").whole(), Player.new(log, name="waiting")
    evil = Player.new(log, name="$(touch owned) *")
    for player in (waiting, evil):
        player.submit()

    def offered(*words: str) -> set[str]:
        """It is given a second; a busy machine may need a second try."""
        return set(wait_until(lambda: complete(*words), f"nothing was offered behind {words}"))

    assert offered("follow", "wai") == {"waiting", waiting.run_id}
    assert offered("stop", "") == {"waiting", waiting.run_id, evil.run_id}, "one that has ended cannot be stopped, and no name can run"
    assert offered("logs", "-f", "fin") == {"finished", done.run_id}


def test_without_a_kafka_it_is_silent_and_does_not_keep_a_person_waiting(complete: Complete) -> None:
    patient = {"KAFKA_JUPYTER_CONNECT_TIMEOUT_S": "50"}  # as a person may be who waits for a command: behind a Tab nobody is
    for servers in ("127.0.0.1:9", "192.0.2.1:9092"):  # nobody listens; nobody answers
        started = time.monotonic()
        assert complete("follow", "d", KAFKA_JUPYTER_BOOTSTRAP_SERVERS=servers, **patient) == []
        assert time.monotonic() - started < 10 * PATIENCE_S
