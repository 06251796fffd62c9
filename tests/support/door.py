"""A Kafka of one broker with a second listener, its door: one that asks for passwords, or one whose way leads through a `Wire`."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

from kafka_jupyter.brokers import daemons, local_jars, local_java, local_nodes
from kafka_jupyter.settings import Settings


@contextlib.contextmanager
def kafka_with_door(folder: pathlib.Path, protocol: str, port: int, advertised: int, properties: Sequence[str] = ()) -> Iterator[None]:
    """The door listens at `port`; clients are told to come to `advertised`. `properties`: more lines for the broker's file."""
    settings = Settings(data_dir=folder)
    (own,) = local_nodes.choose_ports(1, [])
    java = local_java.command(settings, local_jars.classpath(settings, local_jars.silent))
    local_nodes.configure(folder, [own])
    file = folder / "node-1.properties"
    file.write_text(_with_door(file.read_text(), protocol, port, advertised, properties))
    local_nodes.format_new(folder, java, 1)
    node = local_nodes.start(folder, java, 1, own)
    try:
        local_nodes.wait_ready(settings, folder, [node])  # at the broker's own listener, which asks for nothing
        yield
    finally:
        daemons.stop([node.daemon])


def _with_door(text: str, protocol: str, port: int, advertised: int, properties: Sequence[str]) -> str:
    ends = {
        "listeners=": f",DOOR://127.0.0.1:{port}",
        "advertised.listeners=": f",DOOR://127.0.0.1:{advertised}",
        "listener.security.protocol.map=": f",DOOR:{protocol}",
    }
    lines = [line + next((end for start, end in ends.items() if line.startswith(start)), "") for line in text.splitlines()]
    return "\n".join([*lines, *properties, "inter.broker.listener.name=PLAINTEXT", ""])
