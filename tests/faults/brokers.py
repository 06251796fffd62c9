"""Three real brokers that can be killed, frozen and brought back one by one, with ways of their own for a few workers."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator

from confluent_kafka import ElectionType, KafkaException
from confluent_kafka.admin import AdminClient

from kafka_jupyter.brokers import daemons, local_jars, local_java, local_nodes
from kafka_jupyter.brokers.local_nodes import Node, Ports
from kafka_jupyter.settings import Settings
from tests.faults.gates import Gate
from tests.support.waiting import wait_until

GATES = 3
COUNT = 3


class Brokers:
    """`servers` is the straight way; `gates[i].servers` leads through gate i."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._settings = Settings(data_dir=folder)
        self._folder = folder
        ports = local_nodes.choose_ports(COUNT * (1 + GATES), [])  # all at once: none twice
        self._ports, ways = ports[:COUNT], ports[COUNT:]
        self.servers = local_nodes.servers(self._ports)
        self._java = local_java.command(self._settings, local_jars.classpath(self._settings, local_jars.silent))
        local_nodes.configure(folder, self._ports)
        pairs = [self._with_gates(i, ways[i * GATES : (i + 1) * GATES]) for i in range(COUNT)]
        local_nodes.format_new(folder, self._java, COUNT)
        self._nodes = [self._start(i) for i in range(COUNT)]
        try:
            self._wait_ready()
        except BaseException:
            daemons.stop([node.daemon for node in self._nodes], 0.0)
            raise
        self.gates = [Gate([pairs[broker][gate] for broker in range(COUNT)]) for gate in range(GATES)]
        self._admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 2})

    def _with_gates(self, broker: int, ports: list[Ports]) -> list[tuple[int, int]]:
        """Gives the broker one listener more a gate: it listens at the second port, clients are sent to the first."""
        file = self._folder / f"node-{broker + 1}.properties"
        ends = {
            "listeners=": "".join(f",GATE{i}://127.0.0.1:{p.controller}" for i, p in enumerate(ports)),
            "advertised.listeners=": "".join(f",GATE{i}://127.0.0.1:{p.broker}" for i, p in enumerate(ports)),
            "listener.security.protocol.map=": "".join(f",GATE{i}:PLAINTEXT" for i in range(len(ports))),
        }
        lines = [line + next((end for start, end in ends.items() if line.startswith(start)), "") for line in file.read_text().splitlines()]
        file.write_text("\n".join([*lines, "inter.broker.listener.name=PLAINTEXT", ""]))
        return [(p.broker, p.controller) for p in ports]

    def _start(self, broker: int) -> Node:
        return local_nodes.start(self._folder, self._java, broker + 1, self._ports[broker])

    def _wait_ready(self) -> None:
        local_nodes.wait_ready(self._settings, self._folder, self._nodes)

    def kill(self, broker: int) -> None:
        """As a power cut takes it."""
        os.kill(self._nodes[broker].daemon.pid, signal.SIGKILL)
        wait_until(lambda: not self._nodes[broker].daemon.alive, "the broker survived SIGKILL")

    def restart(self, broker: int) -> None:
        if not self._nodes[broker].daemon.alive:
            self._nodes[broker] = self._start(broker)

    def dead(self) -> list[int]:
        return [i for i, node in enumerate(self._nodes) if not node.daemon.alive]

    def whole(self, within: float = 60.0) -> None:
        """All three run again and every replica of every partition is in sync."""
        for broker in self.dead():
            self.restart(broker)
        self._wait_ready()
        wait_until(lambda: not self.lagging(), "not all replicas caught up", within=within)

    def lagging(self) -> list[str]:
        """Partitions that lack a replica in sync."""
        try:
            topics = self._admin.list_topics(timeout=5).topics
        except KafkaException:
            return ["unknown"]
        return [f"{name}[{p.id}]" for name, t in topics.items() for p in t.partitions.values() if len(p.isrs) < len(p.replicas)]

    def move_leaders(self) -> int:
        """Every partition goes back to the broker that should lead it; how many had another one."""
        try:
            moved = self._admin.elect_leaders(ElectionType.PREFERRED, None).result(30)  # its `request_timeout` is broken in 2.16
        except (KafkaException, TimeoutError):  # the controller is away, and nothing moves
            return 0
        return sum(error is None for error in moved.values())

    def leaders(self) -> dict[int, int]:
        """How many partitions each broker leads."""
        topics = self._admin.list_topics(timeout=10).topics
        found = [p.leader for topic in topics.values() for p in topic.partitions.values()]
        return {broker: found.count(broker + 1) for broker in range(COUNT)}

    def close(self) -> None:
        for gate in self.gates:
            gate.close()
        daemons.stop([node.daemon for node in self._nodes], 0.0)  # nobody needs their data


@contextlib.contextmanager
def three_brokers_with_gates(folder: pathlib.Path) -> Iterator[Brokers]:
    brokers = Brokers(folder)
    try:
        yield brokers
    finally:
        brokers.close()


class Clock:
    """Seconds since the start, and a wait until a moment of it: a plan has times, and this is where they pass."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._start

    def wait_for(self, at_s: float) -> None:
        threading.Event().wait(max(0.0, at_s - self.now_s))
