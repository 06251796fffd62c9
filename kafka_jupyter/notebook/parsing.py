"""The magics' command lines: argparse that raises IPython's own UsageError (a subclass would print a whole traceback)."""

from __future__ import annotations

import argparse
import functools
import math
import shlex
from collections.abc import Callable
from typing import Any, NoReturn

from IPython.core.error import UsageError

from kafka_jupyter import redact
from kafka_jupyter.errors import KafkaJupyterError
from kafka_jupyter.settings import parse_size

SETTINGS = {"lr": "learning_rate", "learning_rate": "learning_rate"}


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
        args, unknown = self.parse_known_args(words)
        if any(redact.is_secret(word.partition("=")[0]) for word in unknown):
            self.error("a notebook names a profile (--profile), never a secret: put it into the profile file")
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return args

    @property
    def options(self) -> list[str]:
        return sorted(option for action in self._actions for option in action.option_strings if option.startswith("--"))

    @property
    def choices(self) -> dict[str, list[str]]:
        """What may stand behind an option, where that is a list."""
        return {option: list(action.choices) for action in self._actions if action.choices for option in action.option_strings}

    @property
    def words(self) -> list[str]:
        """What may stand alone, where that is a list."""
        return [word for action in self._actions if action.choices and not action.option_strings for word in action.choices]

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
        called.parser = parser  # type: ignore[attr-defined]  # a function has none of its own
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


def size(text: str) -> int:
    """An argument's type: bytes, as 500MiB or 8GiB."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def label(text: str) -> tuple[str, str]:
    """An argument's type: NAME=VALUE."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


def setting(text: str) -> tuple[str, float]:
    """An argument's type: what can be changed while a run trains."""
    name, _, value = text.partition("=")
    if name not in SETTINGS:
        raise argparse.ArgumentTypeError(f"{name!r} cannot be changed while a run trains; the learning rate can: lr=1e-4")
    try:
        return SETTINGS[name], float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number behind the =, for example {name}=1e-4") from None


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
    pause = Parser("%kafka_pause", "Let a run write a checkpoint, free its slot and rest.", "Example: %kafka_pause digits")
    resume = Parser("%kafka_resume", "Let any worker go on with a paused run.", "Example: %kafka_resume digits")
    ctl = Parser("%kafka_ctl", "Change a run while it trains, at the end of its next batch.", "Example: %kafka_ctl digits lr=1e-4")
    retry = Parser(
        "%kafka_retry",
        "Submit a FAILED, CANCELLED or DEAD run again, as a new run from its last checkpoint; asked for twice, it is one run.",
        "Example: run = %kafka_retry digits --epochs 50 --learning-rate 1e-4",
    )
    for parser in (attach, stop, cancel, pause, resume, ctl, retry):
        parser.add_argument("run", metavar="RUN", help="its id, a unique beginning of it, or the name of my newest run")
    ctl.add_argument("settings", nargs="+", type=setting, metavar="NAME=VALUE", help="lr=1e-4 (or learning_rate=1e-4)")
    ctl.add_argument("--timeout", type=seconds, default=10.0, metavar="S", help="wait so long for the worker's answer (10)")
    dlq = _dlq()
    for parser in (retry, dlq):
        _add_edits(parser)
    for parser in (stop, cancel, pause, resume, ctl, retry, dlq):
        parser.add_argument("--force", action="store_true", help="although it is another person's run (write its whole id)")

    workers = Parser("%kafka_workers", "The workers that are alive.", "Example: %kafka_workers")
    up = Parser(
        "%kafka_up", "Start the local Kafka and workers in the background; again and again is fine.", "Example: %kafka_up --workers 2"
    )
    up.add_argument("--brokers", type=count(1, 9), metavar="N", help="how many brokers; as many as last time if not given")
    up.add_argument("--workers", type=count(0), default=1, metavar="N", help="how many workers to have (1)")
    down = Parser("%kafka_down", "Stop the local Kafka and its workers. Data stay.", "Example: %kafka_down")
    known = (runs, attach, stop, cancel, pause, resume, ctl, retry, dlq, workers, up, down)
    for parser in known:
        parser.add_argument("--profile", metavar="P", help="a table of the profile file (KAFKA_JUPYTER_PROFILE)")
    return {parser.prog.lstrip("%"): parser for parser in (_train(), *known)}


def _dlq() -> Parser:
    parser = Parser(
        "%kafka_dlq",
        "Dead letters, tasks that nobody will train any more: list them, show one, or submit its run again.",
        "Example: %kafka_dlq redrive digits-3f2a --batch-size 16",
    )
    parser.add_argument("action", nargs="?", default="ls", choices=("ls", "show", "redrive"), help="what to do (ls)")
    parser.add_argument("run", nargs="?", metavar="RUN", help="its id, or the beginning of it")
    parser.add_argument("--limit", type=count(1), default=20, metavar="N", help="list at most so many, the newest (20)")
    parser.add_argument("--task", metavar="FILE", help="redrive this task, a JSON file: where the one in the letter cannot be read")
    return parser


def _add_edits(parser: Parser) -> None:
    """What a new try may have otherwise."""
    parser.add_argument("--epochs", type=count(1), metavar="N", help="another number of epochs, all told")
    parser.add_argument("--batch-size", type=count(1), metavar="N", help="another batch size")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="another learning rate")
    parser.add_argument("--device", choices=("gpu", "any"), help="what its worker must have")
    parser.add_argument("--memory", type=size, metavar="SIZE", help="what its worker must have, for example 8GiB")
    parser.add_argument("--priority", choices=("high", "normal", "low"), help="its place in the queue")
    parser.add_argument("--label", type=label, action="append", metavar="NAME=VALUE", help="a label; with no value it goes away")


EDITS = ("epochs", "batch_size", "learning_rate", "device", "memory", "priority")


def edits_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `TrainingRun.retry`, those that were given."""
    given = {name: getattr(args, name) for name in EDITS}
    return {name: value for name, value in (given | {"labels": dict(args.label or []) or None}).items() if value is not None}


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
    parser.add_argument(
        "--trust",
        choices=("data", "code"),
        help="what may travel: data alone, or also the layers, losses, metrics and callbacks that you wrote (code: the default for the "
        "local Kafka). The worker runs it if it was started with --allow-code and knows your key in the role `code`",
    )
    parser.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATH",
        help="a .py file or a folder beside the notebook that your code imports, sent along; may be given several times",
    )
    parser.add_argument("--no-check", dest="check", action="store_false", help="skip the comparison of the first batch's loss")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    return parser
