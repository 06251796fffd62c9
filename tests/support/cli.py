"""The command line in this process: what it prints, and its exit code."""

from __future__ import annotations

import dataclasses

from typer.testing import CliRunner

from kafka_jupyter.cli.app import app
from kafka_jupyter.settings import Settings, env_name


@dataclasses.dataclass(frozen=True)
class Said:
    code: int
    out: str
    error: BaseException | None  # what `main` would turn into one line on stderr


def cli(*words: str, settings: Settings | None = None) -> Said:
    """Runs `kafka-jupyter words…` with `settings` as its environment."""
    done = CliRunner().invoke(app, words, env=environment(settings) if settings else None)
    error = None if isinstance(done.exception, SystemExit) else done.exception
    return Said(done.exit_code, done.output, error)


def environment(settings: Settings) -> dict[str, str]:
    names = ("bootstrap_servers", "topic_prefix", "data_dir", "cache_dir", "owner", "store")
    return {env_name(name): str(getattr(settings, name)) for name in names}
