"""`dlq ls`, `dlq show`, `dlq redrive`: tasks that nobody will train any more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kafka_jupyter.cli import completing, options, say
from kafka_jupyter.cli import control_commands as control
from kafka_jupyter.cli.options import Force, client_of
from kafka_jupyter.settings import env_name

if TYPE_CHECKING:
    from kafka_jupyter.brokers.dead_letters import Buried
    from kafka_jupyter.client import Client
    from kafka_jupyter.protocol.task import Task

app = typer.Typer(name="dlq", help="Dead letters: tasks that nobody will train any more.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="RUN", autocompletion=completing.letters, help="Its id, or the beginning of it.")]
Limit = Annotated[int, typer.Option(envvar=env_name("limit"), min=1, help="At most so many, the newest.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--task", envvar=env_name("task"), exists=True, dir_okay=False, help="The task, edited: a JSON file. - is stdin.", allow_dash=True
    ),
]
Edit = Annotated[bool, typer.Option("--edit", envvar=env_name("edit"), help="Open the task in $EDITOR first.")]
Values = Annotated[
    list[str] | None,
    typer.Option("--set", envvar=env_name("set"), metavar="PATH=VALUE", help="Another value in the task, e.g. fit.validation_split=0.1."),
]
SEARCHED = 1000  # letters of a partition in which a run is looked for


@app.command()
def ls(
    limit: Limit = 30,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """List the dead letters, newest first.

    Example: kafka-jupyter dlq ls
    """
    with client_of(profile, servers, prefix, insecure) as client:
        found = client.dead_letters(limit)
        if as_json:
            say.json([{"at_ms": buried.time_ms, "letter": buried.letter} for buried in found])
        elif found:
            say.table(("run", "buried", "why", "attempts", "worker"), [_row(buried) for buried in found])
        else:
            say.line("no dead letters")
        _tell_junk(client)


@app.command()
def show(
    run: Run,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Show one dead letter: why, the traceback, and the task if it stands in the letter.

    Example: kafka-jupyter dlq show digits-3f2a
    """
    from kafka_jupyter.client import redrive as redriving

    with client_of(profile, servers, prefix, insecure) as client:
        buried = _found(client, run)
    if as_json:
        say.json({"at_ms": buried.time_ms, "letter": buried.letter})
        return
    letter = buried.letter
    say.line(f"{say.plain(letter.run_id)}: {say.plain(letter.why)}")
    place = f"{letter.place.topic}[{letter.place.partition}]@{letter.place.offset}" if letter.place else ""
    facts = {"buried": say.when(buried.time_ms), "worker": letter.by, "attempts": letter.attempts or "", "task": place}
    for name, value in (facts | {"error": letter.error}).items():
        if value:
            say.line(f"  {name:9} {say.plain(value)}")
    for text in letter.traceback.splitlines():
        say.line(f"  {say.plain(text)}")
    if letter.task:
        say.line("the task as it stood in the log:")
        for text in redriving.readable(letter.task).splitlines():
            say.line(say.plain(text))


@app.command()
def redrive(
    run: Run,
    epochs: control.Epochs = None,
    batch_size: control.BatchSize = None,
    learning_rate: control.Rate = None,
    device: control.Device = None,
    memory: control.Memory = None,
    priority: control.Priority = None,
    label: control.Label = None,
    values: Values = None,
    task: File = None,
    edit: Edit = False,
    force: Force = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Submit the run of a dead letter again, as it was or edited. A task that could not be read must be edited.

    Example: kafka-jupyter dlq redrive digits-3f2a --batch-size 16
    """
    from kafka_jupyter.client.retry import Edits

    edits = control.edits_of(epochs, batch_size, learning_rate, device, memory, priority, label)
    with client_of(profile, servers, prefix, insecure) as client:
        buried = _found(client, run)
        written = _written(client, buried, task, values or [], edit)
        again = client.redrive(buried, written, Edits(**edits), force=force)
        control.tell_new(again, "redrive_of", buried.letter.run_id, f"{buried.letter.run_id} is redriven as {again.id}", as_json)


def _written(client: Client, buried: Buried, file: Path | None, values: list[str], edit: bool) -> Task | None:
    """The task that the person wrote; None: as it was."""
    from kafka_jupyter.client import redrive as redriving

    if file is None and not values and not edit:
        return None
    connection, source = client.connection(), "the task"
    if file is not None:
        text, source = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()), str(file)
    else:
        text = redriving.text_of(connection.log, buried, connection.catch_up().state(buried.letter.run_id)).encode()
    text = redriving.with_values(text, values, source)
    if edit:
        import click  # typer has a copy of its own, without this

        edited = click.edit(text.decode("utf-8", "replace"), extension=".json")
        if edited is None:
            say.line("nothing was saved in the editor: nothing is redriven")
            raise typer.Exit(1)
        text = edited.encode()
    return redriving.task_from(text, source)


def _found(client: Client, run: str) -> Buried:
    from kafka_jupyter.client import redrive as redriving

    return redriving.find(client.dead_letters(SEARCHED), run)


def _row(buried: Buried) -> tuple[object, ...]:
    letter = buried.letter
    return (letter.run_id[:100], say.when(buried.time_ms), letter.why[:200], letter.attempts or "", letter.by)


def _tell_junk(client: Client) -> None:
    count = client.connection().log.junk["task_dlq"]
    if count:
        print(f"{count} records of task_dlq are no dead letters of ours and were passed over", file=sys.stderr)
