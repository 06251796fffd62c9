"""`stop`, `cancel`, `pause`, `resume`, `ctl`, `retry`: what can be asked of a run, from a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import completing, options, say
from kafka_jupyter.cli.options import Force, Run, client_of
from kafka_jupyter.settings import env_name, parse_size

if TYPE_CHECKING:
    from kafka_jupyter.client import TrainingRun
    from kafka_jupyter.client.wishes import Answer
    from kafka_jupyter.runs.state import State

Epochs = Annotated[int | None, typer.Option(envvar=env_name("epochs"), min=1, metavar="N", help="Other number of epochs, all told.")]
BatchSize = Annotated[int | None, typer.Option(envvar=env_name("batch_size"), min=1, metavar="N", help="Other batch size.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", envvar=env_name("learning_rate"), min=0, help="Other learning rate.")]
Device = Annotated[str | None, typer.Option(envvar=env_name("device"), metavar="gpu|any", help="What its worker must have.")]
Memory = Annotated[str | None, typer.Option(envvar=env_name("memory"), metavar="SIZE", help="What its worker must have, e.g. 8GiB.")]
Priority = Annotated[str | None, typer.Option(envvar=env_name("priority"), metavar="high|normal|low", help="Its place in the queue.")]
Label = Annotated[
    list[str] | None, typer.Option("--label", envvar=env_name("label"), metavar="NAME=VALUE", help="A label; without a value it goes away.")
]
Settings = Annotated[
    list[str], typer.Argument(metavar="NAME=VALUE…", autocompletion=completing.settings, help="lr=1e-4 (or learning_rate=1e-4).")
]
Seconds = Annotated[float, typer.Option(envvar=env_name("timeout"), min=0, help="Wait so many seconds for the worker's answer.")]

SETTINGS = {"lr": "learning_rate", "learning_rate": "learning_rate"}


def add_to(app: typer.Typer) -> None:
    for command in (stop, cancel, pause, resume, ctl, retry):
        app.command()(command)


def stop(
    run: Run,
    force: Force = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """End a run after its current batch and keep the weights so far.

    Example: kafka-jupyter stop digits
    """
    from kafka_jupyter.client import wishes

    with client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        was = found.state
        _tell(found, was, "stop", wishes.stop(found, force), as_json)


def cancel(
    run: Run,
    force: Force = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """End a run now; nothing of it is kept.

    Example: kafka-jupyter cancel digits-3f2a
    """
    from kafka_jupyter.client import wishes

    with client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        was = found.state
        _tell(found, was, "cancel", wishes.cancel(found, force), as_json)


def pause(
    run: Run,
    force: Force = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Let a run write a checkpoint, free its worker's slot and rest until it is resumed.

    Example: kafka-jupyter pause digits
    """
    from kafka_jupyter.client.wishes import Answer

    with client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        was = found.state
        found.pause(force=force)
        _tell(found, was, "pause", Answer(f"{found.id}: asked to pause. `kafka-jupyter resume {found.short}` goes on."), as_json)


def resume(
    run: Run,
    force: Force = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Let any worker go on with a paused run.

    Example: kafka-jupyter resume digits
    """
    from kafka_jupyter.client.wishes import Answer

    with client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        was = found.state
        found.resume(force=force)
        _tell(found, was, "resume", Answer(f"{found.id}: asked to go on."), as_json)


def ctl(
    run: Run,
    settings: Settings,
    timeout: Seconds = 10.0,
    force: Force = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Change a run while it trains: at the end of the next batch, or when it next starts.

    Example: kafka-jupyter ctl digits lr=1e-4
    """
    from kafka_jupyter.client import wishes

    wanted = values_of(settings)
    with client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        was = found.state
        answer = wishes.change(found, wanted, force, timeout)
        applied = {"epoch": answer.applied.epoch, "step": answer.applied.step} if answer.applied else None
        _tell(found, was, "settings", answer, as_json, settings=wanted, applied=applied)


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
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Submit a FAILED, CANCELLED or DEAD run again, as a new run from its last checkpoint. Asked for twice, it is one run.

    Example: kafka-jupyter retry digits-3f2a --epochs 50 --learning-rate 1e-4
    """
    edits = edits_of(epochs, batch_size, learning_rate, device, memory, priority, label)
    with client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        again = found.retry(force=force, **edits)
        tell_new(again, "retry_of", found.id, f"{found.id} is retried as {again.id}", as_json)


def _tell(run: TrainingRun, was: State | None, request: str, answer: Answer, as_json: bool, **more: object) -> None:
    """`was`: its state when it was asked. The log, and `wait`, say what comes of it."""
    if as_json:
        say.json({"run_id": run.id, "request": request, "asked": answer.asked, "state": was, "message": answer.text, **more})
    else:
        say.line(answer.text)


def tell_new(again: TrainingRun, key: str, run_id: str, text: str, as_json: bool) -> None:
    """A new run, and under `key` the one that it comes from."""
    if as_json:
        say.json({"run_id": again.id, key: run_id, "message": text})
    else:
        say.line(text)


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
