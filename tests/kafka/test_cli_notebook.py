"""`kafka-jupyter notebook finish` on runs that are played into real topics."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.settings import Settings
from tests.support.cli import Said, cli, environment
from tests.support.local import environment as child_environment
from tests.support.playing import Player
from tests.support.saved import cell, live, notebook


@pytest.fixture
def saved(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "digits.ipynb"


def going(log: Log, name: str = "digits") -> Player:
    """A run that has done two epochs of three."""
    player = Player.new(log, name)
    player.submit()
    player.claim()
    player.start()
    player.epoch(0)
    player.epoch(1)
    return player


def end(player: Player) -> None:
    player.epoch(2)
    player.succeed()


def write(path: pathlib.Path, *runs: str) -> str:
    """One cell a run."""
    path.write_text(json.dumps(notebook(*(cell(f"cell {i}", live(run)) for i, run in enumerate(runs))), indent=1) + "\n")
    return path.read_text()


def finish(path: pathlib.Path, settings: Settings, *words: str) -> Said:
    said = cli("notebook", "finish", str(path), *words, settings=settings)
    assert said.error is None
    return said


def cards(path: pathlib.Path) -> list[dict[str, object]]:
    return [output["data"] for each in json.loads(path.read_text())["cells"] for output in each["outputs"]]


def test_what_ended_is_written_what_goes_on_or_is_unknown_is_left_alone(log: Log, settings: Settings, saved: pathlib.Path) -> None:
    ended, running, unknown = Player.new(log).whole(), going(log, "wide"), ids.new_run_id("digits")
    write(saved, ended.run_id, running.run_id, unknown)
    before = cards(saved)
    said = finish(saved, settings)
    assert said.code == 6
    assert said.out.splitlines() == [
        f"{saved}: cell 1, output 1: finished: {ended.run_id} SUCCEEDED",
        f"{saved}: cell 2, output 1: still running: {running.run_id} RUNNING",
        f"{saved}: cell 3, output 1: unknown run: {unknown}: not in this log",
        f"{saved}: what is not in the log of {settings.bootstrap_servers} may be in another one (--profile), "
        "or is older than the log is kept",
    ]
    first, *others = cards(saved)
    assert others == before[1:]
    assert "SUCCEEDED" in first["text/plain"]
    assert [row["epoch"] for row in first[MIME]["runs"][0]["rows"]] == [0, 1, 2]
    again = finish(saved, settings, "--json")
    (report,) = json.loads(again.out)
    assert [output["did"] for output in report["outputs"]] == ["already final", "still running", "unknown run"]
    assert (again.code, report["written"]) == (6, False)


def test_a_run_is_meant_by_its_whole_id_only(log: Log, settings: Settings, saved: pathlib.Path) -> None:
    ended = Player.new(log).whole()
    text = write(saved, "digits", ended.run_id[:-2])
    assert "unknown run: digits: not in this log" in finish(saved, settings).out
    assert saved.read_text() == text


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(log: Log, settings: Settings, saved: pathlib.Path) -> None:
    text = write(saved, Player.new(log).whole().run_id)
    before = saved.stat()
    said = finish(saved, settings, "--dry-run")
    assert said.code == 6
    assert "cell 1, output 1: would be finished: " in said.out
    assert (saved.read_text(), saved.stat().st_mtime_ns, saved.stat().st_ino) == (text, before.st_mtime_ns, before.st_ino)


def test_a_notebook_that_cannot_be_written_has_exit_code_1_and_the_others_are_finished(
    log: Log, settings: Settings, saved: pathlib.Path
) -> None:
    run = Player.new(log).whole().run_id
    locked = saved.with_name("locked.ipynb")
    text = write(locked, run)
    locked.chmod(0o444)
    write(saved, run)
    said = finish(locked, settings, str(saved), "--json")
    assert said.code == 1
    bad, good = json.loads(said.out[: said.out.rindex("]") + 1])
    assert "locked.ipynb was left as it is: it is read-only" in bad["error"]
    assert (bad["written"], bad["outputs"][0]["did"], good["written"]) == (False, "not written", True)
    assert locked.read_text() == text


def test_waiting_follows_the_runs_to_their_end_and_takes_the_file_as_it_is_then(log: Log, settings: Settings, saved: pathlib.Path) -> None:
    first, second = going(log), going(log, "wide")
    write(saved, first.run_id, second.run_id)
    command = [sys.executable, "-u", "-m", "kafka_jupyter.cli", "notebook", "finish", str(saved), "--wait"]
    env = child_environment(settings) | environment(settings)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"waiting for {first.run_id} RUNNING …\n"
        moved = json.loads(saved.read_text())
        moved["cells"].insert(0, cell("new"))  # saved from the page while we wait
        saved.write_text(json.dumps(moved, indent=1))
        second.say(control.CancelRequested(run_id=second.run_id, request_id="r", by="ada@test"))
        second.say(control.Cancelled(**second.own()))
        end(first)
        out, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all(line.startswith("waiting for ") for line in complaints.splitlines())
    assert out.splitlines() == [
        f"{saved}: cell 2, output 1: finished: {first.run_id} SUCCEEDED",
        f"{saved}: cell 3, output 1: finished: {second.run_id} CANCELLED",
    ]
    assert json.loads(saved.read_text())["cells"][0] == cell("new")


def test_without_any_kafka_the_notebook_is_left_alone_and_the_way_out_is_named(bare_settings: Settings, saved: pathlib.Path) -> None:
    text = write(saved, ids.new_run_id("digits"))
    said = cli("notebook", "finish", str(saved), settings=bare_settings)
    assert said.code == 4
    assert "`kafka-jupyter up` starts a local one" in str(said.error)
    assert saved.read_text() == text
