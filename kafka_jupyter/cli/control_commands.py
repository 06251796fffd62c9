"""`pause`, `resume`, `ctl`, `retry`: what else can be asked of a run, from a shell."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.cli.run_commands import Force, Run, client_of
from kafka_jupyter.settings import env_name, parse_size

Epochs = Annotated[int | None, typer.Option(envvar=env_name("epochs"), min=1, metavar="N", help="Other number of epochs, all told.")]
BatchSize = Annotated[int | None, typer.Option(envvar=env_name("batch_size"), min=1, metavar="N", help="Other batch size.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", envvar=env_name("learning_rate"), min=0, help="Other learning rate.")]
Device = Annotated[str | None, typer.Option(envvar=env_name("device"), metavar="gpu|any", help="What its worker must have.")]
Memory = Annotated[str | None, typer.Option(envvar=env_name("memory"), metavar="SIZE", help="What its worker must have, e.g. 8GiB.")]
Priority = Annotated[str | None, typer.Option(envvar=env_name("priority"), metavar="high|normal|low", help="Its place in the queue.")]
Label = Annotated[
    list[str] | None, typer.Option("--label", envvar=env_name("label"), metavar="NAME=VALUE", help="A label; without a value it goes away.")
]
Settings = Annotated[list[str], typer.Argument(metavar="NAME=VALUE…", help="lr=1e-4 (or learning_rate=1e-4).")]
Seconds = Annotated[float, typer.Option(envvar=env_name("timeout"), min=0, help="Wait so many seconds for the worker's answer.")]

SETTINGS = {"lr": "learning_rate", "learning_rate": "learning_rate"}


def add_to(app: typer.Typer) -> None:
    for command in (pause, resume, ctl, retry):
        app.command()(command)


def pause(
    run: Run, force: Force = False, profile: options.Profile = None, servers: options.Servers = None, prefix: options.Prefix = None
) -> None:
    """Let a run write a checkpoint, free its worker's slot and rest until it is resumed.

    Example: kafka-jupyter pause digits
    """
    with client_of(profile, servers, prefix) as client:
        found = client.attach(run)
        found.pause(force=force)
        say.line(f"{found.id}: asked to pause. `kafka-jupyter resume {found.short}` goes on.")


def resume(
    run: Run, force: Force = False, profile: options.Profile = None, servers: options.Servers = None, prefix: options.Prefix = None
) -> None:
    """Let any worker go on with a paused run.

    Example: kafka-jupyter resume digits
    """
    with client_of(profile, servers, prefix) as client:
        found = client.attach(run)
        found.resume(force=force)
        say.line(f"{found.id}: asked to go on.")


def ctl(
    run: Run,
    settings: Settings,
    timeout: Seconds = 10.0,
    force: Force = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
) -> None:
    """Change a run while it trains: at the end of the next batch, or when it next starts.

    Example: kafka-jupyter ctl digits lr=1e-4
    """
    wanted = values_of(settings)
    with client_of(profile, servers, prefix) as client:
        from kafka_jupyter.client import wishes

        say.line(wishes.change(client.attach(run), wanted, force, timeout))


def retry(
    run: Run,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    device: Device = None,
    memory: Memory = None,
    priority: Priority = None,
    label: Label = None,
    force: Force = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
) -> None:
    """Submit a FAILED, CANCELLED or DEAD run again, as a new run from its last checkpoint. Asked for twice, it is one run.

    Example: kafka-jupyter retry digits-3f2a --epochs 50 --learning-rate 1e-4
    """
    edits = edits_of(epochs, batch_size, learning_rate, device, memory, priority, label)
    with client_of(profile, servers, prefix) as client:
        found = client.attach(run)
        again = found.retry(force=force, **edits)
        say.line(f"{found.id} is retried as {again.id}")


def values_of(words: list[str]) -> dict[str, float]:
    """`lr=1e-4` → learning_rate. Raises a usage error."""
    values = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            values[SETTINGS[name]] = float(text)
        except KeyError:
            raise typer.BadParameter(f"{name!r} cannot be changed while a run trains; the learning rate can: lr=1e-4") from None
        except ValueError:
            raise typer.BadParameter(f"{word!r}: write a number behind the =, for example {name}=1e-4") from None
    return values


def edits_of(
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    device: str | None,
    memory: str | None,
    priority: str | None,
    label: list[str] | None,
) -> dict[str, Any]:
    """Arguments of `TrainingRun.retry`, those that were given."""
    try:
        size = parse_size(memory) if memory else None
    except ValueError as error:
        raise typer.BadParameter(f"--memory {memory}: {error}") from None
    labels = {name: value for name, _, value in (text.partition("=") for text in label or [])} or None
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "device": device}
    given |= {"memory": size, "priority": priority, "labels": labels}
    return {name: value for name, value in given.items() if value is not None}
