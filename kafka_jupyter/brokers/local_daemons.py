"""Workers and JupyterLab in the background, beside the local Kafka and stopped with it. Known in `daemons.json`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
import time
import urllib.parse
from collections.abc import Iterable

import msgspec

from kafka_jupyter.brokers import daemons
from kafka_jupyter.brokers.daemons import Daemon
from kafka_jupyter.errors import LocalKafkaError
from kafka_jupyter.settings import Settings, env_name

LAB = "lab"
_LAB_READY_S = 60.0


def recorded(folder: pathlib.Path) -> list[Daemon]:
    """Those that were started and not stopped, living or not. `folder`: that of the local Kafka."""
    try:
        return msgspec.json.decode((folder / "daemons.json").read_bytes(), type=list[Daemon])
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return []


def living_workers(folder: pathlib.Path) -> list[Daemon]:
    return [daemon for daemon in recorded(folder) if daemon.name != LAB and daemon.alive]


def start_workers(settings: Settings, folder: pathlib.Path, count: int) -> list[Daemon]:
    """Background workers `local-1` … `local-<count>`; those that live already are left alone. All that live now.

    `settings` must say where Kafka is. Raises LocalKafkaError if one ends at once.
    """
    with daemons.locked(folder / "daemons.lock", 60, lambda: None):
        living = {daemon.name: daemon for daemon in recorded(folder) if daemon.alive}
        for name in (f"local-{i}" for i in range(1, count + 1)):
            if name not in living:
                command = [sys.executable, "-m", "kafka_jupyter.cli", "worker", "--name", name]
                living[name] = _spawn(settings, folder, name, command)
                _write(folder, living.values())
    return [daemon for name, daemon in living.items() if name != LAB]


def start_lab(settings: Settings, folder: pathlib.Path, root: pathlib.Path, notebook: str = "") -> tuple[Daemon, str]:
    """JupyterLab in the background, showing `root`; with its address (of `notebook` in it), token included. One that runs already is
    returned."""
    with daemons.locked(folder / "daemons.lock", 60, lambda: None):
        living = {daemon.name: daemon for daemon in recorded(folder) if daemon.alive}
        if LAB not in living:
            command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.root_dir={root.absolute()}"]
            if os.geteuid() == 0:  # who runs this as root, in a container, means it
                command.append("--allow-root")
            living[LAB] = _spawn(settings, folder, LAB, command)
            _write(folder, living.values())
    return living[LAB], _lab_address(living[LAB], notebook)


def stop_all(folder: pathlib.Path) -> list[str]:
    """Stops workers and lab; their names."""
    stopped = [daemon.name for daemon in daemons.stop(recorded(folder))]
    (folder / "daemons.json").unlink(missing_ok=True)
    return stopped


def environment(settings: Settings) -> dict[str, str]:
    """Ours plus these settings as KAFKA_JUPYTER_* variables. The pass-through of a profile stays in its file: it may hold a password."""
    env = daemons.python_environment()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name != "kafka":
            env[env_name(field.name)] = str(value.absolute()) if isinstance(value, pathlib.Path) else str(value)
    return env


def _spawn(settings: Settings, folder: pathlib.Path, name: str, command: list[str]) -> Daemon:
    log = folder / "logs" / f"{name}.log"
    daemons.rotate(log)
    return daemons.spawn(name, command, log, folder, environment(settings))


def _write(folder: pathlib.Path, living: Iterable[Daemon]) -> None:
    daemons.write_atomically(folder / "daemons.json", msgspec.json.format(msgspec.json.encode(list(living))))


def _lab_address(lab: Daemon, notebook: str) -> str:
    """From the file that every Jupyter server writes when it listens."""
    from jupyter_core.paths import jupyter_runtime_dir

    file = pathlib.Path(jupyter_runtime_dir()) / f"jpserver-{lab.pid}.json"
    deadline = time.monotonic() + _LAB_READY_S
    while not file.exists():
        if not lab.alive or time.monotonic() > deadline:
            raise LocalKafkaError(detail=f"JupyterLab did not come up: {daemons.tail(pathlib.Path(lab.log))} (its log is {lab.log})")
        time.sleep(0.05)
    server = msgspec.json.decode(file.read_bytes())
    page = f"lab/tree/{urllib.parse.quote(notebook)}" if notebook else "lab"
    return f"{server['url']}{page}?token={server['token']}"
