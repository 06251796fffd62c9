"""The magics' command lines: argparse that raises IPython's own UsageError (a subclass would print a whole traceback)."""

from __future__ import annotations

import argparse
import functools
import math
import shlex
from collections.abc import Callable
from typing import Any, NoReturn

from IPython.core.error import UsageError

from kafka_jupyter.errors import KafkaJupyterError


class Helped(Exception):
    """The help was printed."""


class Parser(argparse.ArgumentParser):
    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} ({self.prog} --help says more)")

    def exit(self, *_: Any, **__: Any) -> NoReturn:
        raise Helped

    def read(self, line: str) -> argparse.Namespace:
        """Raises UsageError, and Helped after --help."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            self.error(str(error).lower())
        return self.parse_args(words)

    @property
    def options(self) -> list[str]:
        return sorted(option for action in self._actions for option in action.option_strings if option.startswith("--"))

    @property
    def choices(self) -> dict[str, list[str]]:
        """What may stand behind an option, where that is a list."""
        return {option: list(action.choices) for action in self._actions if action.choices for option in action.option_strings}

    @property
    def takes_run(self) -> bool:
        return any(action.dest == "run" for action in self._actions)


def magic(parser: Parser) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A magic that gets its parsed arguments; our errors become one line. Its `?` shows the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(self: Any, line: str = "", cell: str | None = None) -> Any:
            if cell is not None:
                raise UsageError(f"%{parser.prog} must stand in the first line of its cell.")
            try:
                return function(self, parser.read(line))
            except Helped:
                return None
            except KafkaJupyterError as error:
                raise UsageError(str(error)) from error

        called.__doc__ = parser.format_help()
        called.parser = parser  # type: ignore[attr-defined]
        return called

    return decorate


def count(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument's type: a whole number in this range."""

    def read(text: str) -> int:
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {allowed}")
        return value

    return read


def seconds(text: str) -> float:
    """An argument's type: a time that passes, and ends."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def state(text: str) -> str:
    """An argument's type: a state of a run. (What a state is, is imported when somebody asks: `%load_ext` stays quick.)"""
    from kafka_jupyter.runs.values import State

    if text.upper() not in list(State):
        raise argparse.ArgumentTypeError(f"{text!r} is no state of a run: {', '.join(State).lower()}")
    return text.upper()


def parsers() -> dict[str, Parser]:
    """By the name of the magic, without `%`."""
    runs = Parser("%kafka_runs", "The runs in the log, newest first.", "Example: %kafka_runs --state running")
    runs.add_argument("--state", type=state, metavar="STATE", help="only those in this state, for example running")
    runs.add_argument("--name", help="only those of this name")
    runs.add_argument("--mine", action="store_true", help="only my own")
    runs.add_argument("--limit", type=count(1), default=20, metavar="N", help="at most so many (20)")

    attach = Parser("%kafka_attach", "Show a run's card and return its handle.", "Example: run = %kafka_attach digits")
    stop = Parser("%kafka_stop", "End a run after its current batch; it SUCCEEDS with the weights so far.", "Example: %kafka_stop digits")
    cancel = Parser("%kafka_cancel", "End a run now; nothing is kept.", "Example: %kafka_cancel digits-3f2a")
    for parser in (attach, stop, cancel):
        parser.add_argument("run", metavar="RUN", help="its id, a unique beginning of it, or the name of my newest run")
    for parser in (stop, cancel):
        parser.add_argument("--force", action="store_true", help="although it is another person's run (write its whole id)")

    workers = Parser("%kafka_workers", "The workers that are alive.", "Example: %kafka_workers")
    up = Parser(
        "%kafka_up", "Start the local Kafka and workers in the background; again and again is fine.", "Example: %kafka_up --workers 2"
    )
    up.add_argument("--brokers", type=count(1, 9), metavar="N", help="how many brokers; as many as last time if not given")
    up.add_argument("--workers", type=count(0), default=1, metavar="N", help="how many workers to have (1)")
    down = Parser("%kafka_down", "Stop the local Kafka and its workers. Data stay.", "Example: %kafka_down")
    for parser in (runs, attach, stop, cancel, workers, up, down):
        parser.add_argument("--profile", metavar="P", help="a table of the profile file (KAFKA_JUPYTER_PROFILE)")
    known = (_train(), runs, attach, stop, cancel, workers, up, down)
    return {parser.prog.lstrip("%"): parser for parser in known}


def _train() -> Parser:
    parser = Parser(
        "%%kafka_train",
        "Train every Keras `fit` of this cell on a worker. Nothing else changes: when `fit` returns, the model is trained.",
        "Example: %%kafka_train digits --background",
    )
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="of the runs; the model's name if not given")
    parser.add_argument("--background", action="store_true", help="do not wait: `fit` returns the TrainingRun at once")
    parser.add_argument("--attach", action="store_true", help="adopt my active or succeeded run of this name that trains the same")
    parser.add_argument("--on-interrupt", choices=("detach", "stop", "cancel"), help="what the interrupt button does to the run (detach)")
    parser.add_argument("--queue-timeout", type=seconds, metavar="S", help="give up when no worker has taken it for so many seconds")
    parser.add_argument("--profile", metavar="P", help="a table of the profile file (KAFKA_JUPYTER_PROFILE)")
    parser.add_argument("--trust", choices=("code",), help="let user-defined code travel (comes with a later version)")
    parser.add_argument("--no-check", dest="check", action="store_false", help="skip the comparison of the first batch's loss")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    return parser
