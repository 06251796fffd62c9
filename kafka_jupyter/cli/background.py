"""Starts what runs in the background, waits until it is ready, and says how it is."""

from __future__ import annotations

import contextlib
import pathlib
import time
import webbrowser
from typing import Any

from kafka_jupyter.brokers import daemons, local, local_daemons, local_jars
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.cli import say
from kafka_jupyter.errors import BrokerError, LocalKafkaError
from kafka_jupyter.settings import Settings

_WORKERS_S = 90.0  # for workers to load Keras; a cold disk needs long for TensorFlow


def start(
    settings: Settings, brokers: int | None, workers: int, lab: bool, notebook: pathlib.Path | None = None, as_json: bool = False
) -> None:
    folder = local.folder_of(settings)
    with say.progress() as progress:
        ready = local.provide(settings, workers, brokers, progress)
        if workers:
            progress("Waiting for the workers (they load Keras)", None)
            _await_workers(ready, folder)
        address = ""
        if lab:
            progress("Starting JupyterLab", None)
            root = notebook.parent if notebook else pathlib.Path.cwd()
            _, address = local_daemons.start_lab(settings, folder, root, notebook.name if notebook else "")
    if as_json:
        say.json({**look(settings), "lab": address or None})
    else:
        _say_started(ready, folder, address)
    if address and notebook:
        webbrowser.open(address)  # where there is no browser, what was printed is all


def _say_started(ready: Settings, folder: pathlib.Path, address: str) -> None:
    count = len(ready.bootstrap_servers.split(","))
    say.line(f"Apache Kafka {local_jars.KAFKA_VERSION} is ready at {ready.bootstrap_servers} ({count} broker{'s' * (count > 1)})")
    for daemon in _workers(folder):
        say.line(f"worker {daemon.name}: pid {daemon.pid}, log {daemon.log}")
    if address:
        say.line(f"JupyterLab: {address}")
    say.line(f"Logs are in {folder / 'logs'}. Stop with: kafka-jupyter down")


def _workers(folder: pathlib.Path) -> list[daemons.Daemon]:
    return [daemon for daemon in local_daemons.recorded(folder) if not local_daemons.is_lab(daemon.name)]


def _await_workers(settings: Settings, folder: pathlib.Path) -> None:
    """Until every background worker has announced itself. Raises LocalKafkaError if one ends, or is silent for too long."""
    from kafka_jupyter.client import Client

    deadline = time.monotonic() + _WORKERS_S
    with contextlib.closing(Client(settings)) as client:
        while True:
            announced = {info.pid for info in client.workers()}
            missing = [daemon for daemon in _workers(folder) if daemon.pid not in announced]
            if not missing:
                return
            for daemon in missing:
                if not daemon.alive or time.monotonic() > deadline:
                    what = "has not announced itself" if daemon.alive else "has ended"
                    raise LocalKafkaError(
                        detail=f"worker {daemon.name} {what}: {daemons.tail(pathlib.Path(daemon.log))} (its log is {daemon.log})"
                    )
            time.sleep(0.05)


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

    try:
        info = Admin(Cluster(settings.replace(bootstrap_servers=servers))).info()
    except BrokerError as error:
        return {"answers": False, "problem": str(error), "cluster_id": ""}
    return {"answers": True, "problem": "", "cluster_id": info.cluster_id}


def show(found: dict[str, Any]) -> None:
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
