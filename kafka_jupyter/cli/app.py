"""All commands, and what every one of them does with an error: one line on stderr and the exit code that belongs to it."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import typer
import typer.core

import kafka_jupyter
from kafka_jupyter.cli import (
    completing,
    control_commands,
    dlq_commands,
    doctor,
    follow_commands,
    kafka_commands,
    key_commands,
    notebook_commands,
    options,
    run_commands,
    say,
    store_commands,
    topic_commands,
)
from kafka_jupyter.cli.exits import Code, code_of
from kafka_jupyter.errors import KafkaJupyterError


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `kafka-jupyter runs | head`. Nothing went wrong: typer would exit with 1
            _let_go_of_stdout()
            raise typer.Exit(Code.FINE) from None
        except KeyboardInterrupt:  # older versions of typer exit with 1
            raise typer.Exit(Code.INTERRUPTED) from None


app = typer.Typer(
    name=completing.NAME,
    cls=_Commands,
    help="Trains Keras models from notebook cells on workers, over Apache Kafka.\n\n"
    "Start here: `kafka-jupyter up`, then `%load_ext kafka_jupyter` in a notebook.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.command()
def version(as_json: options.Json = False) -> None:
    """Say the version.

    Example: kafka-jupyter version
    """
    if as_json:
        say.json({"version": kafka_jupyter.__version__})
    else:
        say.line(kafka_jupyter.__version__)


kafka_commands.add_to(app)
doctor.add_to(app)
run_commands.add_to(app)
follow_commands.add_to(app)
control_commands.add_to(app)
app.add_typer(dlq_commands.app)
app.add_typer(key_commands.app)
app.add_typer(topic_commands.app)
app.add_typer(store_commands.app)
app.add_typer(notebook_commands.app)
app.command()(completing.completion)


def run() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where there is none
            stream.reconfigure(errors="replace")  # a terminal may know less than what names are written in
    asked = completing.ASKED in os.environ
    if asked:
        completing.begin()
    code = _outcome()
    try:
        print(end="", flush=True)
    except BrokenPipeError:
        _let_go_of_stdout()
    if asked:
        os._exit(Code.FINE)  # threads may still read the log: they are not to be torn down one by one while a person waits at a prompt
    sys.exit(code)


def _outcome() -> int | str | None:
    try:
        app(prog_name=completing.NAME)
    except (KafkaJupyterError, KeyboardInterrupt) as error:
        if str(error):
            say.error(str(error))
        return code_of(error)
    except SystemExit as end:
        return end.code
    return Code.FINE


def _let_go_of_stdout() -> None:
    """What is still to be written goes nowhere: the interpreter would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
