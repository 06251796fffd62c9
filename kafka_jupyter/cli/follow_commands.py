"""`follow`: what a run does, while it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.cli.run_commands import number
from kafka_jupyter.protocol.rows import Metrics

if TYPE_CHECKING:
    from kafka_jupyter.client import RunEvent


def add_to(app: typer.Typer) -> None:
    app.command()(follow)


def follow(run: options.Run, profile: options.Profile = None, servers: options.Servers = None, prefix: options.Prefix = None) -> None:
    """Print what a run does until it ends. Ctrl-C ends the printing only.

    The exit code says how the run ended: 0 SUCCEEDED, 10 FAILED, 11 CANCELLED, 12 DEAD.

    Example: kafka-jupyter follow digits
    """
    with options.client_of(profile, servers, prefix) as client:
        found = client.attach(run)
        for event in found.events():
            text = _told(event)
            if text:
                say.line(text, flush=True)
        if found.error is not None:
            raise found.error


def _told(event: RunEvent) -> str:
    """One line for an event; batches are left out, they are for a card that moves."""
    if event.kind == "epoch":
        return f"epoch {event.epoch + 1}  {_metrics(event.metrics)}"
    if event.kind == "line":
        return event.text
    if event.kind == "applied":
        return f"epoch {event.epoch + 1}, batch {event.step}: from here on {_metrics(event.metrics)}"
    if event.kind == "state":
        return str(event.state) + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
    return ""


def _metrics(metrics: Metrics) -> str:
    return " ".join(f"{name}={number(value)}" for name, value in metrics.items())
