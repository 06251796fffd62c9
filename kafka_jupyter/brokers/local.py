"""The local Apache Kafka: started as background processes that outlive shell and kernel, data kept from one start to the next.

Everything lies under `settings.data_dir / "kafka"`: `node-<i>/` (the data), `logs/`, `ports.json` (of the last start),
`endpoint.json` (what runs; gone after `down`), `daemons.json` (workers and lab, see local_daemons), `trust.toml` (who may write, see
local_trust) and `lock`.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time

import msgspec

from kafka_jupyter.brokers import daemons, local_archive, local_daemons, local_jars, local_java, local_nodes, local_trust
from kafka_jupyter.brokers.local_jars import Progress
from kafka_jupyter.brokers.local_nodes import Node, Ports
from kafka_jupyter.errors import BrokerUnreachable, LocalKafkaBroken, LocalKafkaError, SettingsError
from kafka_jupyter.settings import Settings

_LOCK_S = 300.0  # for another process that starts or stops the same local Kafka, fetching the jars included


class Endpoint(msgspec.Struct, frozen=True):
    """The local Kafka that runs, or that ran last."""

    cluster_id: str
    nodes: tuple[Node, ...]
    started_ms: int
    folder: str
    ready: bool = False  # all nodes have answered: until then nobody but `up` counts it as running

    @property
    def servers(self) -> str:
        return local_nodes.servers([node.ports for node in self.nodes])

    @property
    def brokers(self) -> int:
        return len(self.nodes)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(node.daemon.pid for node in self.nodes)

    @property
    def logs(self) -> tuple[str, ...]:
        return tuple(node.daemon.log for node in self.nodes)

    @property
    def dead(self) -> tuple[Node, ...]:
        """Nodes that were started and have ended without `down`: killed, crashed, or the machine was started anew."""
        return tuple(node for node in self.nodes if not node.daemon.alive)


def folder_of(settings: Settings) -> pathlib.Path:
    return settings.data_dir.absolute() / "kafka"


def recorded(settings: Settings) -> Endpoint | None:
    """What the last `up` started and no `down` has stopped, whether it still lives or not."""
    try:
        return msgspec.json.decode((folder_of(settings) / "endpoint.json").read_bytes(), type=Endpoint)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None


def endpoint(settings: Settings) -> Endpoint | None:
    """The local Kafka if it was ready once and at least one of its nodes lives. Reads a file and looks at processes, no more."""
    found = recorded(settings)
    return found if found and found.ready and len(found.dead) < found.brokers else None


def resolve(settings: Settings) -> Settings:
    """`settings` with `bootstrap_servers`: their own, else those of the running local Kafka, which is signed. Raises BrokerUnreachable."""
    found = endpoint(settings)
    if settings.bootstrap_servers:
        is_local = found is not None and found.servers == settings.bootstrap_servers and not settings.trust_policy
        return local_trust.signed(settings, folder_of(settings)) if is_local else settings
    if found is None:
        raise BrokerUnreachable(servers="this machine (no other is configured)")
    return local_trust.signed(settings.replace(bootstrap_servers=found.servers), folder_of(settings))


def brokers_formatted(settings: Settings) -> int:
    """How many nodes have data; 0 before the first start."""
    return len(list(folder_of(settings).glob("node-*/meta.properties")))


def up(settings: Settings, brokers: int | None = None, progress: Progress = local_jars.silent) -> Endpoint:
    """Starts what does not run yet and returns when every broker answers. May be called at any time, by several processes at once.

    `brokers`: None for as many as there were (1 on the first start). Raises LocalKafkaMissing (the extra `local` is not installed),
    LocalKafkaBroken (with the end of its log) or LocalKafkaError.
    """
    folder = folder_of(settings)
    try:
        with daemons.locked(folder / "lock", _LOCK_S, lambda: progress("Another process is starting or stopping the local Kafka", None)):
            return _up(settings, brokers, progress)
    except OSError as error:  # no rights, no space
        raise LocalKafkaError(detail=f"{error}. Its folder is {folder}; KAFKA_JUPYTER_DATA_DIR names another") from error


def _up(settings: Settings, brokers: int | None, progress: Progress) -> Endpoint:
    folder, before = folder_of(settings), recorded(settings)
    formatted = brokers_formatted(settings)
    count = brokers or formatted or 1
    if formatted and count != formatted:
        raise LocalKafkaError(
            detail=f"the data in {folder} are those of {_plural(formatted)}, not {count}. "
            "`kafka-jupyter down --delete-data` forgets them with all runs; then it can be started with another number"
        )
    running = before is not None and len(before.dead) < before.brokers
    local_trust.provide(settings, folder, running)
    if before and before.ready and not before.dead:
        return before
    classpath = local_jars.classpath(settings, progress)
    if before and running:
        found = _start_again(settings, before, classpath, progress)
    else:
        found = _start(settings, count, classpath, progress)
    if before and before.servers != found.servers:
        local_daemons.stop_all(folder)  # workers of a Kafka that was killed and had to move: they look at the old address
    local_archive.make_later(settings, folder, classpath)
    return found


def provide(settings: Settings, workers: int = 1, brokers: int | None = None, progress: Progress = local_jars.silent) -> Settings:
    """All that a first run needs: the local Kafka, its topics, background workers. `settings` that know where it is.

    Raises what `up` raises, and SettingsError if another Kafka is configured.
    """
    from kafka_jupyter.brokers.kafka import Cluster
    from kafka_jupyter.brokers.topics import open_topics

    if settings.bootstrap_servers:
        raise SettingsError(
            name=f"bootstrap_servers={settings.bootstrap_servers!r}", why="a local Kafka would not be used", source="the settings"
        )
    settings = local_trust.signed(settings.replace(bootstrap_servers=up(settings, brokers, progress).servers), folder_of(settings))
    open_topics(Cluster(settings), create=True)
    if workers:
        progress("Starting workers", None)
        local_daemons.start_workers(settings, folder_of(settings), workers)
    return settings


def _start(settings: Settings, count: int, classpath: str, progress: Progress) -> Endpoint:
    folder = folder_of(settings)
    daemons.stop(daemons.strays(folder, "kafka.Kafka"))
    wish = _last_ports(folder)
    for last_try in (False, True):
        ports = local_nodes.choose_ports(count, wish)
        try:
            return _start_on(settings, ports, classpath, progress)
        except LocalKafkaBroken:
            # Between choosing a port and Kafka's listening somebody else may take it: then, and only then, a second try helps.
            if last_try or ports == local_nodes.choose_ports(count, ports):
                raise
    raise AssertionError("unreachable")


def _start_on(settings: Settings, ports: list[Ports], classpath: str, progress: Progress) -> Endpoint:
    folder = folder_of(settings)
    local_nodes.configure(folder, ports)
    java = local_java.command(settings, classpath)
    if brokers_formatted(settings) < len(ports):
        progress("Formatting the data folder (once)", None)
    cluster = local_nodes.format_new(folder, java, len(ports))
    progress(f"Starting Apache Kafka {local_jars.KAFKA_VERSION} ({_plural(len(ports))})", None)
    nodes: list[Node] = []
    try:
        nodes += (local_nodes.start(folder, java, i, p) for i, p in enumerate(ports, 1))
        found = Endpoint(cluster, tuple(nodes), int(time.time() * 1000), str(folder))
        _write(folder / "endpoint.json", found)  # before it is ready: a starter that is killed now leaves no unknown process
        local_nodes.wait_ready(settings, folder, nodes)
    except BaseException:
        daemons.stop(node.daemon for node in nodes)
        (folder / "endpoint.json").unlink(missing_ok=True)
        raise
    _write(folder / "ports.json", ports)
    return _ready(found)


def _start_again(settings: Settings, found: Endpoint, classpath: str, progress: Progress) -> Endpoint:
    """Some nodes live, some may have died: the dead ones, on their old ports, because the living ones know them there."""
    folder = folder_of(settings)
    java = local_java.command(settings, classpath)
    if found.dead:
        progress(f"Starting {_plural(len(found.dead))} again", None)
    dead = {node.id for node in found.dead}
    nodes = tuple(local_nodes.start(folder, java, node.id, node.ports) if node.id in dead else node for node in found.nodes)
    found = msgspec.structs.replace(found, nodes=nodes)
    _write(folder / "endpoint.json", found)
    local_nodes.wait_ready(settings, folder, nodes)
    return _ready(found)


def _ready(found: Endpoint) -> Endpoint:
    found = msgspec.structs.replace(found, ready=True)
    _write(pathlib.Path(found.folder) / "endpoint.json", found)
    return found


def down(settings: Settings, delete_data: bool = False) -> list[str]:
    """Stops the background workers, the lab and every broker; what was stopped, by name. Data stay, unless `delete_data`."""
    folder = folder_of(settings)
    if not folder.exists():
        return []
    with daemons.locked(folder / "lock", _LOCK_S, lambda: None):
        stopped = local_daemons.stop_all(folder)  # first: a worker hands its runs back, and needs Kafka for that
        found = recorded(settings)
        if found:
            stopped += [daemon.name for daemon in daemons.stop(node.daemon for node in found.nodes)]
            (folder / "endpoint.json").unlink(missing_ok=True)
        if delete_data:
            for data in [*folder.glob("node-*"), folder / "ports.json"]:
                with contextlib.suppress(NotADirectoryError):
                    shutil.rmtree(data) if data.is_dir() else data.unlink(missing_ok=True)
    return stopped


def _last_ports(folder: pathlib.Path) -> list[Ports]:
    try:
        return msgspec.json.decode((folder / "ports.json").read_bytes(), type=list[Ports])
    except (FileNotFoundError, msgspec.MsgspecError):
        return []


def _write(file: pathlib.Path, value: object) -> None:
    daemons.write_atomically(file, msgspec.json.format(msgspec.json.encode(value)))


def _plural(brokers: int) -> str:
    return "1 broker" if brokers == 1 else f"{brokers} brokers"
