"""What `%kafka_dlq` prints and does."""

from __future__ import annotations

import datetime
import pathlib
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from kafka_jupyter.client import redrive
from kafka_jupyter.client.retry import Edits

if TYPE_CHECKING:
    from kafka_jupyter.brokers.dead_letters import Buried
    from kafka_jupyter.client import Client, TrainingRun

SEARCHED = 1000  # letters in which a run is looked for


def listed(client: Client, limit: int) -> str:
    """One line a letter, newest first."""
    return "\n".join(_line(buried) for buried in client.dead_letters(limit)) or "No dead letters."


def shown(client: Client, run: str) -> str:
    letter = (buried := redrive.find(client.dead_letters(SEARCHED), run)).letter
    task = redrive.readable(letter.task) if letter.task else ""
    return "\n".join(_plain(line) for text in (_line(buried), letter.traceback, task) for line in text.splitlines())


def redriven(client: Client, run: str, file: str | None, edits: dict[str, Any], force: bool) -> TrainingRun:
    """The new run. Raises what `Client.redrive` raises, UsageError for a file that cannot be read."""
    buried = redrive.find(client.dead_letters(SEARCHED), run)
    task = None
    if file is not None:
        try:
            task = redrive.task_from(pathlib.Path(file).read_bytes(), file)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from error
    made = client.redrive(buried, task, Edits(**edits), force)
    print(f"{_plain(buried.letter.run_id)} is redriven as {made.id}.")
    return made


def _line(buried: Buried) -> str:
    letter = buried.letter
    when = datetime.datetime.fromtimestamp(buried.time_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    tried = f", {letter.attempts} attempts" if letter.attempts else ""
    return _plain(f"{letter.run_id[:100]}  {when}  {letter.why[:200]}{tried}" + (f", buried by {letter.by}" if letter.by else ""))


def _plain(text: str) -> str:
    """Letters come from others: what could steer a terminal is left out."""
    return "".join(c for c in text if c.isprintable())
