"""The command line in this process: what it prints, and its exit code. And what docs/cli.md promises of it."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from typer.testing import CliRunner

from kafka_jupyter.cli.app import app
from kafka_jupyter.cli.exits import code_of
from kafka_jupyter.errors import KafkaJupyterError
from kafka_jupyter.settings import Settings, env_name

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/cli.md"
_CODE = re.compile(r"`([^`]+)`")


@dataclasses.dataclass(frozen=True)
class Said:
    code: int
    out: str
    error: BaseException | None  # what `main` would turn into one line on stderr


def cli(*words: str, settings: Settings | None = None) -> Said:
    """Runs `kafka-jupyter words…` with `settings` as its environment."""
    done = CliRunner().invoke(app, words, env=environment(settings) if settings else None)
    error = None if isinstance(done.exception, SystemExit) else done.exception
    return Said(code_of(error) if isinstance(error, KafkaJupyterError) else done.exit_code, done.output, error)


def environment(settings: Settings) -> dict[str, str]:
    names = ("bootstrap_servers", "topic_prefix", "data_dir", "cache_dir", "owner", "store")
    return {env_name(name): str(getattr(settings, name)) for name in names}


def tables(section: str) -> list[list[str]]:
    """The rows of all tables in a section of docs/cli.md, each a list of cells."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if set(row[0]) != {"-"}]


def documented(what: str) -> set[str]:
    """The keys that docs/cli.md promises for the JSON of a command, an event or a part."""
    (keys,) = [row[-1] for row in tables("JSON") if what in _CODE.findall(row[0]) or what == row[0]]
    return set(_CODE.findall(keys))
