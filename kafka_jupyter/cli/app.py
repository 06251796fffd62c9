"""All commands, and what every one of them does with an error: one line on stderr and exit code 1."""

from __future__ import annotations

import io
import os
import sys

import typer

import kafka_jupyter
from kafka_jupyter.cli import (
    control_commands,
    dlq_commands,
    doctor,
    kafka_commands,
    notebook_commands,
    run_commands,
    say,
    store_commands,
    topic_commands,
)
from kafka_jupyter.errors import KafkaJupyterError

app = typer.Typer(
    name="kafka-jupyter",
    help="Trains Keras models from notebook cells on workers, over Apache Kafka.\n\n"
    "Start here: `kafka-jupyter up`, then `%load_ext kafka_jupyter` in a notebook.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.command()
def version() -> None:
    """Say the version.

    Example: kafka-jupyter version
    """
    print(kafka_jupyter.__version__)


kafka_commands.add_to(app)
doctor.add_to(app)
run_commands.add_to(app)
control_commands.add_to(app)
app.add_typer(dlq_commands.app)
app.add_typer(topic_commands.app)
app.add_typer(store_commands.app)
app.add_typer(notebook_commands.app)


def run() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where there is none
            stream.reconfigure(errors="replace")  # a terminal may know less than what names are written in
    try:
        app()
    except KafkaJupyterError as error:
        say.error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `kafka-jupyter runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
