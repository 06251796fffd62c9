"""The command line as a person meets it: help, usage errors, named errors."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from kafka_jupyter import __version__
from kafka_jupyter.cli import say
from kafka_jupyter.cli.app import app
from kafka_jupyter.protocol.rows import EpochEnded
from kafka_jupyter.settings import Settings
from tests.support.cli import cli
from tests.support.local import environment

MUST_BE_TYPED = {"--delete-data", "--force", "--help"}  # what destroys must not come from an environment somebody forgot


def commands() -> Iterator[tuple[str, ...]]:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((name, inner) for inner in command.commands)
        else:
            yield (name,)


def of(words: tuple[str, ...]) -> Any:
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return command


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_shows_an_example(words: tuple[str, ...]) -> None:
    said = cli(*words, "--help")
    assert said.code == 0
    assert f"Example: kafka-jupyter {' '.join(words)}" in said.out


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_option_has_a_twin_in_the_environment(words: tuple[str, ...]) -> None:
    options = [p for p in of(words).params if p.param_type_name == "option" and not MUST_BE_TYPED & set(p.opts)]
    lacking = [p.opts[0] for p in options if not str(p.envvar or "").startswith("KAFKA_JUPYTER_")]
    assert lacking == []
    text = " ".join(cli(*words, "--help").out.split())
    assert [p.envvar for p in options if str(p.envvar) not in text] == []


def test_help_loads_neither_a_kafka_client_nor_keras_nor_numpy() -> None:
    heavy = {"confluent_kafka", "keras", "tensorflow", "numpy", "rich", "ipywidgets", "jgo"}
    code = f"import sys, kafka_jupyter.cli.app; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_version_is_said() -> None:
    assert cli("version").out.strip() == __version__


@pytest.mark.parametrize("words", [("up", "--brokers", "none"), ("fly",), ("stop",), ("worker", "--slots", "0")], ids=" ".join)
def test_a_usage_error_has_exit_code_2(words: tuple[str, ...]) -> None:
    assert cli(*words).code == 2


def test_an_unreachable_broker_is_one_line_on_stderr_and_exit_code_4(bare_settings: Settings) -> None:
    command = [sys.executable, "-m", "kafka_jupyter.cli", "runs", "--bootstrap-servers", "127.0.0.1:9"]
    done = subprocess.run(command, env=environment(bare_settings), capture_output=True, text=True, timeout=30)
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.startswith("kafka-jupyter: No Kafka broker answered at 127.0.0.1:9.")
    assert done.stderr.count("\n") == 1


def test_without_any_kafka_the_way_out_is_named(bare_settings: Settings) -> None:
    said = cli("runs", settings=bare_settings)
    assert said.code == 4
    assert "`kafka-jupyter up` starts a local one" in str(said.error)


@pytest.mark.parametrize("words", [["runs"], ["store", "ls"], ["topics", "check"], ["status"], ["stop", "digits"]])
def test_a_kafka_elsewhere_without_tls_needs_a_word(words: list[str], bare_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_JUPYTER_CONNECT_TIMEOUT_S", "1")
    elsewhere = bare_settings.replace(bootstrap_servers="kafka.invalid:9092")
    refused = cli(*words, settings=elsewhere)
    assert (refused.code, "could read and change all that is said to it" in f"{refused.error} {refused.out}") == (1, True)
    allowed = cli(*words, "--insecure", settings=elsewhere)
    assert (allowed.code, "could read" in f"{allowed.error} {allowed.out}") == (4, False), allowed


def test_status_without_a_kafka_says_how_to_start_one(bare_settings: Settings) -> None:
    said = cli("status", settings=bare_settings)
    assert said.code == 4
    assert "not running. Start it with: kafka-jupyter up" in said.out


def test_up_is_refused_where_another_kafka_is_configured(bare_settings: Settings) -> None:
    said = cli("up", settings=bare_settings.replace(bootstrap_servers="kafka.example.org:9092"))
    assert "a local Kafka would not be used" in str(said.error)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert say.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")])
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert say.size(count) == text


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert say.plain("run\x1b[2J\r\nname") == "run  name"
    assert say.plain("\x1b[1m10/10\x1b[0m \x1b[32m━━\x1b[37m\x1b[0m 1s") == "10/10 ━━ 1s", "Keras writes in colours"
    assert say.plain("a\x1b]0;title\x07b\x9b31mc\x1b]8;;http://x\x1b\\d\x1bPq#0\x1b\\e\x1b") == "abcde"
    assert say.plain("abc\u202etxt.exe\u2066\u200f\ud800\x00\x7f") == "abctxt.exe"
    assert say.plain("名前\tê\u2028x") == f"名前{'':6}ê x"


def test_json_is_the_same_and_holds_nothing_that_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {"name\x1b[2J\u202e": ["\x9b2J\x7f\u2066\U000e0001 名前 ★", float("nan")]}
    for print_it in (say.json, say.json_line):
        print_it(hostile)
        text = capsys.readouterr().out
        assert json.loads(text) == {"name\x1b[2J\u202e": ["\x9b2J\x7f\u2066\U000e0001 名前 ★", None]}
        assert [c for c in text if not c.isprintable() and c != "\n"] == []
        assert "名前 ★" in text


def test_json_has_the_keys_that_stand_at_their_defaults_too() -> None:
    assert json.loads(say.encoded([EpochEnded(1, 0)])) == [
        {"type": "epoch", "seq": 1, "epoch": 0, "step": 0, "metrics": {}, "seconds": 0.0, "at_ms": 0}
    ]


def test_every_command_that_answers_can_do_so_in_json() -> None:
    silent = {("worker",), ("completion",)}  # the one does not end, the other speaks to a shell
    options = {words: {name for p in of(words).params for name in p.opts} for words in commands()}
    assert {words for words in options if "--json" not in options[words]} == silent


@pytest.mark.parametrize("words", [("runs", "--state", "fast"), ("runs", "--mine", "--owner", "ada"), ("runs", "--watch")], ids=" ".join)
def test_options_that_make_no_sense_are_usage_errors_that_say_what_does(words: tuple[str, ...]) -> None:
    said = cli(*words)
    assert said.code == 2
    assert any(text in said.out for text in ("running, ", "leave --owner out", "it needs a terminal"))


def test_names_that_a_terminal_cannot_write_do_not_stop_a_command(tmp_path: pathlib.Path) -> None:
    environ = os.environ | {"PYTHONIOENCODING": "ascii", "KAFKA_JUPYTER_CONFIG": str(tmp_path / "名前.toml")}
    done = subprocess.run([sys.executable, "-m", "kafka_jupyter.cli", "runs", "-p", "名"], env=environ, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"there is no profile file" in done.stderr
