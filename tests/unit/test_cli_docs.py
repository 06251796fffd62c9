"""docs/cli.md is the whole of the command line: what a script may rely on stands there, and nothing else."""

from __future__ import annotations

import re

from kafka_jupyter.cli.exits import Code
from kafka_jupyter.runs.values import State
from tests.support.cli import DOCUMENT, cli, tables
from tests.unit.test_cli_commands import commands, of

CODE = re.compile(r"`([^`]+)`")


def test_every_command_is_named_and_no_other() -> None:
    (section,) = re.findall(r"\A(.*?)^## ", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {tuple(re.findall(r"^[a-z]+(?: [a-z]+)*", text)[0].split()) for cell in cells for text in CODE.findall(cell)}
    assert named == set(commands())


def test_every_exit_code_is_listed_and_no_other() -> None:
    assert [int(row[0]) for row in tables("Exit codes")[1:]] == [code.value for code in Code]


def test_follow_and_wait_say_their_exit_codes() -> None:
    ends = ", ".join(f"{Code[state]} {state}" for state in (State.FAILED, State.CANCELLED, State.DEAD))
    for command in ("follow", "wait"):
        assert f"0 SUCCEEDED, {ends}" in " ".join(cli(command, "--help").out.split())


def test_the_json_of_every_command_that_has_one_is_described() -> None:
    described = {text for row in tables("JSON") for text in CODE.findall(row[0])}
    has_json = {" ".join(words) for words in commands() if any("--json" in p.opts for p in of(words).params)}
    assert has_json - described == {"follow", "logs"}, "theirs is described event by event"
    assert {"state", "epoch", "batch", "line", "applied"} <= described


def test_every_option_that_the_document_speaks_of_is_there() -> None:
    known = {name for words in commands() for p in of(words).params for name in p.opts}
    named = {word for text in CODE.findall(DOCUMENT.read_text("utf-8")) for word in re.findall(r"(?<!\S)--?[a-z][a-z-]*", text)}
    assert named - known == {"--help"}
    assert {"-f", "-n", "-t", "--attempt", "--watch", "--timeout"} <= named
