"""What a shell is offered: runs that the command can do something with, in characters that no shell takes for more."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import threading
import time

import pytest

from kafka_jupyter.cli import completing
from kafka_jupyter.protocol import control
from kafka_jupyter.runs import state as fold
from kafka_jupyter.runs.state import Placed, RunState, State
from kafka_jupyter.settings import profiles

ALL = frozenset(State)


def run(run_id: str, at_ms: int, name: str = "digits", owner: str = "ada", cancelled: bool = False) -> RunState:
    submitted = control.Submitted(run_id=run_id, task=control.TaskPlace("task", 0, 0), name=name, owner=owner, epochs=1)
    state = fold.apply(None, Placed(submitted, 0, at_ms))
    if cancelled:
        state = fold.apply(state, Placed(control.CancelRequested(run_id=run_id, request_id="r", by=owner), 1, at_ms))
    return state


def words(found: list[tuple[str, str]]) -> list[str]:
    return [word for word, _ in found]


def test_ids_are_offered_newest_first_and_names_of_my_own() -> None:
    found = [run("digits-1", 1), run("digits-2", 2), run("wide-3", 3, name="wide", owner="grace")]
    assert words(completing.offers(found, ALL, "ada", "")) == ["wide-3", "digits", "digits-2", "digits-1"]
    assert words(completing.offers(found, ALL, "ada", "digits-")) == ["digits-2", "digits-1"]
    assert completing.offers(found, ALL, "ada", "w")[0][1].startswith("QUEUED ")


def test_only_runs_are_offered_for_which_the_command_has_something_to_do() -> None:
    found = [run("digits-1", 1), run("digits-2", 2, cancelled=True)]
    assert words(completing.offers(found, completing._FOR["stop"], "ada", "d")) == ["digits", "digits-1"]
    assert words(completing.offers(found, completing._FOR["retry"], "ada", "d")) == ["digits", "digits-2"]
    assert words(completing.offers(found, completing._FOR["resume"], "ada", "d")) == []


@pytest.mark.parametrize("evil", ["$(touch x)", "`id`", "a b", "*", "a;b", "a\nb", "'", "--force", "", "a:b", "a\x1b[2J", "é", "n" * 101])
def test_what_a_shell_would_take_for_more_than_a_word_is_not_offered(evil: str) -> None:
    assert completing.offers([run(evil, 1, name=evil)], ALL, "ada", "") == []


def test_a_long_list_is_cut() -> None:
    assert len(completing.offers([run(f"r-{i}", i) for i in range(500)], ALL, "grace", "")) == completing.OFFERED


def test_states_are_completed_behind_a_comma_too_and_none_twice() -> None:
    assert completing.states("ru") == ["running"]
    assert completing.states("running,que") == ["running,queued"]
    assert completing.states("running,ru") == []
    assert {"active", "ended", "dead"} <= set(completing.states(""))


def test_nobody_waits_for_what_does_not_come_and_what_goes_wrong_is_not_said() -> None:
    started, never = time.monotonic(), threading.Event()
    assert completing.in_time(lambda: [("late", str(never.wait(60)))]) == []
    assert time.monotonic() - started < completing.PATIENCE_S + 2
    never.set()
    assert completing.in_time(lambda: [("bad", str(1 / 0))]) == []
    assert completing.in_time(lambda: [("good", "")]) == [("good", "")]


def test_while_a_shell_asks_nothing_is_said_behind_its_cursor() -> None:
    code = "import logging\nfrom kafka_jupyter.cli import completing\ncompleting.begin()\nlogging.warning('Kafka is away')\n1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_profiles_are_those_of_the_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "profiles.toml"
    environ = {"KAFKA_JUPYTER_CONFIG": str(file)}
    assert profiles(environ) == []
    file.write_text('stray = 1\n[default]\n[team1]\ntopic_prefix = "team1."\n')
    assert profiles(environ) == ["default", "team1"]
    file.write_text("[broken")
    assert profiles(environ) == []
