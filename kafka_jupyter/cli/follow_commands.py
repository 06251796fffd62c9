"""`follow`, `wait`, `logs`: what a run does, while it does it."""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import facts, options, say
from kafka_jupyter.cli.run_commands import number
from kafka_jupyter.protocol.rows import LogLine, Metrics
from kafka_jupyter.settings import env_name

if TYPE_CHECKING:
    from kafka_jupyter.client import RunEvent, TrainingRun

Plain = Annotated[bool, typer.Option("--plain", envvar=env_name("plain"), help="Lines, on a terminal too.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", envvar=env_name("follow_timeout"), min=0, metavar="SECONDS", help="Wait no longer; exit code 124."),
]


def add_to(app: typer.Typer) -> None:
    for command in (follow, wait, logs):
        app.command()(command)


def follow(
    run: options.Run,
    plain: Plain = False,
    timeout: Timeout = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Show what a run does until it ends. Ctrl-C ends the showing only.

    On a terminal a picture that moves, else lines; with --json one object a line. The exit code says how the run ended: 0 SUCCEEDED,
    10 FAILED, 11 CANCELLED, 12 DEAD.

    Example: kafka-jupyter follow digits
    """
    moving = not as_json and not plain and say.moves()
    with options.client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        with _leaving(found, "follow", moving):
            if moving:
                from kafka_jupyter.cli import live

                live.follow(client, found, timeout)
            else:
                _follow(found, timeout, as_json)
        if found.error is not None:
            raise found.error


def _follow(run: TrainingRun, timeout: float | None, as_json: bool) -> None:
    say.end_with_the_pipe()
    for event in run.events(timeout):
        if as_json:
            say.json_line(_event_json(run, event))
            continue
        for text in _told(run, event):
            say.line(text, flush=True)


def wait(
    run: options.Run,
    timeout: Timeout = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Wait in silence until a run has ended. The exit code says how: 0 SUCCEEDED, 10 FAILED, 11 CANCELLED, 12 DEAD.

    Example: kafka-jupyter wait digits --timeout 3600 && echo trained
    """
    with options.client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        with _leaving(found, "wait"):
            found.wait_for_end(timeout)
        if as_json:
            say.json(facts.run_json(found.card(), found.rows(), time.time() * 1000))
        elif found.error is None:
            say.line(found.summary())
        if found.error is not None:
            raise found.error


def logs(
    run: options.Run,
    following: Annotated[bool, typer.Option("--follow", "-f", envvar=env_name("follow"), help="Go on until the run ends.")] = False,
    count: Annotated[int | None, typer.Option("--lines", "-n", envvar=env_name("lines"), min=0, help="Only the last so many.")] = None,
    attempt: Annotated[
        int | None,
        typer.Option(envvar=env_name("attempt"), min=1, help="All lines of this attempt, those included that a later one has replaced."),
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", envvar=env_name("timestamps"), help="When each was printed.")] = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Print what the training of a run has printed.

    Example: kafka-jupyter logs digits -f -n 100
    """
    with options.client_of(profile, servers, prefix, insecure) as client:
        found = client.attach(run)
        if attempt is not None and attempt > found.card()["attempt"]:
            raise typer.BadParameter(f"{found.id} has had {found.card()['attempt']} attempts", param_hint="--attempt")
        with _leaving(found, "logs -f"):
            if following:
                say.end_with_the_pipe()
            for event in _lines(found, count, attempt, following):
                if as_json:
                    say.json_line(facts.event_json(found.id, event))
                else:
                    say.line(f"{_stamp(event.at_ms)}  {event.text}" if timestamps else event.text, flush=following)


def _lines(run: TrainingRun, count: int | None, attempt: int | None, following: bool) -> Iterator[RunEvent]:
    from kafka_jupyter.client import events

    state = run.state
    assert state is not None  # it was attached to
    rows = run.rows() if attempt is None else [(attempt, row) for row in run.rows_of(attempt)]
    here = [(n, row) for n, row in rows if isinstance(row, LogLine)]
    yield from (events.of_row(n, row, state) for n, row in (here if count is None else here[len(here) - min(count, len(here)) :]))
    seen = {(n, row.seq) for n, row in here}
    for event in run.events() if following else ():
        if event.kind == "line" and (event.attempt, event.seq) not in seen and attempt in (None, event.attempt):
            yield event


def _stamp(at_ms: int) -> str:
    """The worker's clock in local time, to the millisecond: `2026-08-01 12:00:59.123`."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.datetime.fromtimestamp(at_ms / 1000).isoformat(" ", "milliseconds")
    return ""


@contextlib.contextmanager
def _leaving(run: TrainingRun, command: str, fresh: bool = False) -> Iterator[None]:
    """Ctrl-C ends the showing, not the run. `fresh`: the cursor stands at the beginning of a line."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.ended:
            print(f"{'' if fresh else chr(10)}The run goes on. Come back with: kafka-jupyter {command} {run.short}", file=sys.stderr)
        raise


def _event_json(run: TrainingRun, event: RunEvent) -> dict[str, Any]:
    told = facts.event_json(run.id, event)
    if event.kind != "state":
        return told
    card = run.card()
    error = {"error": card["error"]["error"], "message": card["error"]["message"]} if card["error"] else None
    return told | {"queue": card["queue"], "waiting": card["waiting"], "error": error}


def _told(run: TrainingRun, event: RunEvent) -> Iterator[str]:
    """The lines for an event; batches are left out, they are for a picture that moves."""
    if event.kind == "epoch":
        yield f"epoch {event.epoch + 1}  {_metrics(event.metrics)}"
    elif event.kind == "line":
        yield event.text
    elif event.kind == "applied":
        yield f"epoch {event.epoch + 1}, batch {event.step}: from here on {_metrics(event.metrics)}"
    elif event.kind == "state":
        yield str(event.state) + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
        card = run.card()
        if card["queue"] and card["state"] == event.state:
            yield f"place {card['queue']} in the queue. {card['waiting']}".rstrip()


def _metrics(metrics: Metrics) -> str:
    return " ".join(f"{name}={number(value)}" for name, value in metrics.items())
