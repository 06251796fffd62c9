"""Workers and JupyterLab in the background, beside the local Kafka and stopped with it. Known in `daemons.json`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

import msgspec

from kafka_jupyter.brokers import daemons
from kafka_jupyter.brokers.daemons import Daemon
from kafka_jupyter.errors import LocalKafkaError
from kafka_jupyter.settings import Settings, env_name

_LAB = "lab"  # and lab-2, lab-3 of other folders
_LAB_READY_S = 60.0


def recorded(folder: pathlib.Path) -> list[Daemon]:
    """Those that were started and not stopped, living or not. `folder`: that of the local Kafka."""
    try:
        return msgspec.json.decode((folder / "daemons.json").read_bytes(), type=list[Daemon])
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return []


def living_workers(folder: pathlib.Path) -> list[Daemon]:
    return [daemon for daemon in recorded(folder) if daemon.alive and not is_lab(daemon.name)]


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
    return [daemon for name, daemon in living.items() if not is_lab(name)]


def is_lab(name: str) -> bool:
    return name.partition("-")[0] == _LAB


def start_lab(settings: Settings, folder: pathlib.Path, root: pathlib.Path, notebook: str = "") -> tuple[Daemon, str]:
    """JupyterLab in the background, showing `root`; with its address (of `notebook` in it), token included.

    One that runs already is returned if it shows them: it is never stopped for another folder, its kernels are somebody's work.
    """
    wanted = (root / notebook).resolve()
    with daemons.locked(folder / "daemons.lock", 60, lambda: None):
        living = {daemon.name: daemon for daemon in recorded(folder) if daemon.alive}
        labs = [daemon for name, daemon in living.items() if is_lab(name)]
        found = next((lab for lab in labs if wanted.is_relative_to(_server(lab)["root_dir"])), None)
        if found is None:
            name = next(name for name in (_LAB, *(f"{_LAB}-{i}" for i in range(2, 100))) if name not in living)
            command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.root_dir={root.resolve()}"]
            if os.geteuid() == 0:  # who runs this as root, in a container, means it
                command.append("--allow-root")
            found = living[name] = _spawn(settings, folder, name, command)
            _write(folder, living.values())
    return found, _lab_address(_server(found), wanted)


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


def _server(lab: Daemon) -> dict[str, Any]:
    """What every Jupyter server writes into a file, once it answers: it writes that in the moment before it listens."""
    from jupyter_core.paths import jupyter_runtime_dir

    file = pathlib.Path(jupyter_runtime_dir()) / f"jpserver-{lab.pid}.json"
    deadline = time.monotonic() + _LAB_READY_S
    while not (file.exists() and _answers(msgspec.json.decode(file.read_bytes())["url"])):
        if not lab.alive or time.monotonic() > deadline:
            raise LocalKafkaError(detail=f"JupyterLab did not come up: {daemons.tail(pathlib.Path(lab.log))} (its log is {lab.log})")
        time.sleep(0.05)
    server: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    return server


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}api", timeout=1).close()
    except urllib.error.HTTPError:  # also an answer
        return True
    except OSError:
        return False
    return True


def _lab_address(server: dict[str, Any], wanted: pathlib.Path) -> str:
    path = urllib.parse.quote(wanted.relative_to(server["root_dir"]).as_posix())
    return f"{server['url']}lab{'' if path == '.' else f'/tree/{path}'}?token={server['token']}"
