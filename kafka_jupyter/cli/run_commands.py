"""`runs`, `show`, `follow`, `stop`, `cancel`, `workers`: what the notebook's handle can do, from a shell."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.protocol.rows import EpochEnded
from kafka_jupyter.settings import env_name

if TYPE_CHECKING:
    from kafka_jupyter.client import Client, RunEvent, TrainingRun

Run = Annotated[str, typer.Argument(metavar="RUN", help="An id, a unique beginning of one, or my newest run of that name.")]
Force = Annotated[bool, typer.Option("--force", help="Another person's run; it needs its whole id.")]


def add_to(app: typer.Typer) -> None:
    for command in (runs, show, follow, stop, cancel, workers):
        app.command()(command)


def runs(
    state: Annotated[str | None, typer.Option(envvar=env_name("state"), help="Only those in this state, e.g. RUNNING.")] = None,
    name: Annotated[str | None, typer.Option(envvar=env_name("run_name"), help="Only those of this name.")] = None,
    owner: Annotated[str | None, typer.Option(envvar=env_name("run_owner"), help="Only those of this person.")] = None,
    limit: Annotated[int, typer.Option(envvar=env_name("limit"), min=1, help="At most so many.")] = 30,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
) -> None:
    """List the runs, newest first.

    Example: kafka-jupyter runs --state running
    """
    with client_of(profile, servers, prefix) as client:
        found = client.runs(state=state, name=name, owner=owner, limit=limit)
        if as_json:
            say.json([run.card() for run in found])
        elif not found:
            say.line("no runs")
        else:
            say.table(("run", "state", "progress", "metrics", "worker", "submitted", "owner"), [_row(run) for run in found])


def show(
    run: Run,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
) -> None:
    """Show one run: its state, every epoch, and the error if it failed.

    Example: kafka-jupyter show digits-3f2a
    """
    with client_of(profile, servers, prefix) as client:
        found = client.attach(run)
        if as_json:
            say.json({"run": found.card(), "rows": [{"attempt": n, **say.whole(row)} for n, row in found.rows()]})
        else:
            _show(found)


def follow(run: Run, profile: options.Profile = None, servers: options.Servers = None, prefix: options.Prefix = None) -> None:
    """Print what a run does until it ends. Exit code 0 if it succeeded. Ctrl-C ends the printing only.

    Example: kafka-jupyter follow digits
    """
    with client_of(profile, servers, prefix) as client:
        found = client.attach(run)
        for event in found.events():
            text = _told(event)
            if text:
                print(text, flush=True)
        if found.error is not None:
            raise found.error


def stop(
    run: Run, force: Force = False, profile: options.Profile = None, servers: options.Servers = None, prefix: options.Prefix = None
) -> None:
    """End a run after its current batch and keep the weights so far.

    Example: kafka-jupyter stop digits
    """
    with client_of(profile, servers, prefix) as client:
        from kafka_jupyter.client import wishes

        say.line(wishes.stop(client.attach(run), force))


def cancel(
    run: Run, force: Force = False, profile: options.Profile = None, servers: options.Servers = None, prefix: options.Prefix = None
) -> None:
    """End a run now; nothing of it is kept.

    Example: kafka-jupyter cancel digits-3f2a
    """
    with client_of(profile, servers, prefix) as client:
        from kafka_jupyter.client import wishes

        say.line(wishes.cancel(client.attach(run), force))


def workers(
    as_json: options.Json = False, profile: options.Profile = None, servers: options.Servers = None, prefix: options.Prefix = None
) -> None:
    """List the workers that are alive.

    Example: kafka-jupyter workers
    """
    with client_of(profile, servers, prefix) as client:
        found = client.workers()
    if as_json:
        say.json(found)
    elif not found:
        say.line("no workers. `kafka-jupyter worker` starts one")
    else:
        columns = ("worker", "host", "slots", "free", "device", "keras", "memory", "running")
        say.table(columns, [_worker(info) for info in found])


def _worker(info: Any) -> tuple[object, ...]:
    doing = ", ".join(info.running) or info.unfit
    keras = info.versions.get("keras", "")
    return (info.name, info.host, info.slots, info.free, info.device, keras, say.size(info.memory), doing)


@contextlib.contextmanager
def client_of(profile: str | None, servers: str | None, prefix: str | None) -> Iterator[Client]:
    from kafka_jupyter.client import Client  # late: --help needs no Kafka client

    with contextlib.closing(Client(options.settings_from(profile, servers, prefix))) as client:
        yield client


def _row(run: TrainingRun) -> tuple[str, ...]:
    card = run.card()
    return (run.id, card["state"], run.progress, _metrics(run.metrics), card["worker"], when(card["submitted_ms"]), card["owner"])


def _show(run: TrainingRun) -> None:
    card = run.card()
    say.line(f"{run.id} {card['state']}, {run.progress}")
    facts = {
        "owner": card["owner"],
        "submitted": when(card["submitted_ms"]),
        "took": _took(card),
        "worker": " ".join(filter(None, (card["worker"], card.get("host"), card["device"]))),
        "attempt": card["attempt"] if card["attempt"] > 1 else "",
        "notebook": card["notebook"],
        "waiting": card["waiting"],
        "retry of": card.get("retry_of", ""),
        "files": ", ".join(card["files"]),
    }
    for name, value in facts.items():
        if value:
            say.line(f"  {name:9} {value}")
    epochs = [row for _, row in run.rows() if isinstance(row, EpochEnded)]
    names = list(dict.fromkeys(name for row in epochs for name in row.metrics))
    if epochs:
        say.table(("epoch", *names), [(row.epoch + 1, *(_number(row.metrics.get(name)) for name in names)) for row in epochs])
    error = card["error"]
    if error:
        say.line(f"{error['error']}: {error['message']}")
        for text in error["traceback"].splitlines():
            say.line(f"  {text}")


def _told(event: RunEvent) -> str:
    """One line for an event; batches are left out, they are for a card that moves."""
    if event.kind == "epoch":
        return f"epoch {event.epoch + 1}  {_metrics(event.metrics)}"
    if event.kind == "line":
        return say.plain(event.text)
    if event.kind == "applied":
        return f"epoch {event.epoch + 1}, batch {event.step}: from here on {_metrics(event.metrics)}"
    if event.kind == "state":
        return str(event.state) + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
    return ""


def _metrics(metrics: dict[str, float | None]) -> str:
    return " ".join(f"{name}={_number(value)}" for name, value in metrics.items())


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4g}"


def _took(card: dict[str, Any]) -> str:
    if not card["started_ms"]:
        return ""
    return say.duration((card["ended_ms"] or time.time() * 1000) / 1000 - card["started_ms"] / 1000)


def when(at_ms: int | None) -> str:
    return datetime.datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if at_ms else ""
