"""The nodes of the local Kafka: their ports, their configuration, formatting, starting, and knowing when they are ready."""

from __future__ import annotations

import base64
import contextlib
import pathlib
import random
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Collection, Sequence

import msgspec

from kafka_jupyter.brokers import daemons, local_java
from kafka_jupyter.brokers.daemons import Daemon
from kafka_jupyter.errors import BrokerError, LocalKafkaBroken
from kafka_jupyter.settings import Settings

READY_S = 60.0  # a node that is not ready by then is broken; two busy cores needed 15 s for three nodes
FORMAT_S = 60.0
_PORTS = range(10_240, 32_768)  # below those that systems give to outgoing connections

# Relative paths only, every process runs in the folder: no path has to survive Java's property files (Latin-1, comma-separated).
_LOG4J = """Configuration:
  Appenders: {Console: {name: C, PatternLayout: {pattern: '%d %p %c %m%n'}}}
  Loggers: {Root: {level: WARN, AppenderRef: {ref: C}}}
"""

_PROPERTIES = """process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=node-{id}
auto.create.topics.enable=false
# an artifact chunk is 512 KiB; a task in JSON may hold as much in base64
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
default.replication.factor={replication}
min.insync.replicas={insync}
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={insync}
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={insync}
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# with the default heartbeat of 5 s a rebalance takes 5 s
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=10000
# the registration of a killed node is refused until its session is over
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
# by default something is written twice a second where nothing happens: a quarter of what an idle broker costs
metadata.max.idle.interval.ms=5000
# a small footprint: Kafka reserves 10 MB of index a partition and 128 MB for the cleaner
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
# artifacts are deleted by tombstones: their segments are looked at sooner than at half dirt
log.cleaner.min.cleanable.ratio=0.2
"""


class Ports(msgspec.Struct, frozen=True):
    broker: int
    controller: int


class Node(msgspec.Struct, frozen=True):
    id: int
    ports: Ports
    daemon: Daemon


def servers(ports: Sequence[Ports]) -> str:
    return ",".join(f"127.0.0.1:{p.broker}" for p in ports)


def choose_ports(count: int, wish: Sequence[Ports]) -> list[Ports]:
    """`wish` (those of the last time) as far as nobody else has taken them, else free ones."""
    taken: set[int] = set()
    chosen = []
    for i in range(count):
        wanted = wish[i] if i < len(wish) else Ports(0, 0)
        pair = []
        for port in (wanted.broker, wanted.controller):
            port = port if port and port not in taken and _is_free(port) else free_port(taken)
            taken.add(port)
            pair.append(port)
        chosen.append(Ports(*pair))
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: connections that just ended do not count
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def free_port(taken: Collection[int] = ()) -> int:
    """None that the system gives: any connection to anywhere may have that one in the next moment.

    By chance of the system's own: a notebook seeds Python's, and all who run it would get the same ports.
    """
    chance = random.SystemRandom()
    while True:
        port = chance.choice(_PORTS)
        if port not in taken and _is_free(port):
            return port


def configure(folder: pathlib.Path, ports: Sequence[Ports]) -> None:
    """Writes the property files of all nodes: a node names its fellows' ports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log4j2.yaml").write_text(_LOG4J)
    voters = ",".join(f"{i}@127.0.0.1:{p.controller}" for i, p in enumerate(ports, 1))
    replication = 3 if len(ports) >= 3 else 1
    insync = 2 if len(ports) >= 3 else 1
    for i, p in enumerate(ports, 1):
        text = _PROPERTIES.format(id=i, voters=voters, port=p.broker, controller=p.controller, replication=replication, insync=insync)
        (folder / f"node-{i}.properties").write_text(text)


def cluster_id(folder: pathlib.Path) -> str:
    """The id the data were formatted with; empty if there are no data."""
    for meta in sorted(folder.glob("node-*/meta.properties")):
        found = re.search(r"^cluster\.id=(\S+)", meta.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return ""


def format_new(folder: pathlib.Path, java: list[str], count: int) -> str:
    """Formats the nodes that have no data yet, side by side; the cluster id, which stays for as long as the data do."""
    name = cluster_id(folder) or _new_id()
    started = []
    for i in range(1, count + 1):
        if (folder / f"node-{i}" / "meta.properties").exists():
            continue
        command = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", name, "--config", f"node-{i}.properties"]
        started.append(
            subprocess.Popen(
                command, cwd=folder, env=local_java.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    for process in started:
        with process:
            try:
                said, _ = process.communicate(timeout=FORMAT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                said = f"formatting took longer than {FORMAT_S:g} s"
        if process.returncode:
            raise LocalKafkaBroken(detail=f"its data folder could not be formatted: {said.strip()[-500:]}", log=str(folder))
    return name


def _new_id() -> str:
    """128 random bits as Kafka writes them. Never with a dash in front, which its command line takes for an option."""
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return name


def start(folder: pathlib.Path, java: list[str], node: int, ports: Ports) -> Node:
    log = folder / "logs" / f"node-{node}.log"
    daemons.rotate(log)
    command = [*java, "kafka.Kafka", f"node-{node}.properties"]
    return Node(node, ports, daemons.spawn(f"node-{node}", command, log, folder, local_java.environment()))


def wait_ready(settings: Settings, folder: pathlib.Path, nodes: Sequence[Node]) -> None:
    """Until the metadata list every node of the cluster whose data lie in `folder`: somebody else's Kafka may have taken a port before
    ours could. Raises LocalKafkaBroken with the end of the log of the node that did not come up."""
    from kafka_jupyter.brokers.admin import Admin  # here: looking whether a local Kafka runs needs no Kafka client
    from kafka_jupyter.brokers.kafka import Cluster

    ours = (cluster_id(folder), len(nodes))
    deadline = time.monotonic() + READY_S
    address = servers([node.ports for node in nodes])
    admin: Admin | None = None
    while True:
        for node in nodes:
            if not node.daemon.alive:
                raise _broken(node, "it ended")
        if time.monotonic() > deadline:
            late = next((node for node in nodes if not _accepts(node.ports.broker)), nodes[0])
            raise _broken(late, f"it was not ready after {READY_S:g} s")
        if all(_accepts(node.ports.broker) for node in nodes):  # before that the client would only wait between its attempts
            admin = admin or Admin(Cluster(settings.replace(bootstrap_servers=address, kafka={})))
            with contextlib.suppress(BrokerError):
                found = admin.info(timeout_s=1.0)
                if (found.cluster_id, found.brokers) == ours:
                    return
        time.sleep(0.03)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _broken(node: Node, what: str) -> LocalKafkaBroken:
    log = pathlib.Path(node.daemon.log)
    return LocalKafkaBroken(detail=f"{node.daemon.name}: {what}. It said: {daemons.tail(log)}", log=node.daemon.log)
