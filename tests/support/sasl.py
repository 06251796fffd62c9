"""A Kafka that asks for name and password (SASL/PLAIN), in a folder of its own."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping

from kafka_jupyter.brokers import daemons, local_jars, local_java, local_nodes
from kafka_jupyter.settings import Settings

_LISTENER = "SASL_PLAINTEXT"
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required {users};"


@contextlib.contextmanager
def kafka_with_passwords(folder: pathlib.Path, passwords: Mapping[str, str]) -> Iterator[str]:
    """The address at which the broker takes these users and nobody else."""
    settings = Settings(data_dir=folder)
    own, other = local_nodes.choose_ports(2, [])  # four free ports: one of the second pair is the door
    door = other.broker
    java = local_java.command(settings, local_jars.classpath(settings, local_jars.silent))
    local_nodes.configure(folder, [own])
    properties = folder / "node-1.properties"
    properties.write_text(_with_door(properties.read_text(), door, passwords))
    local_nodes.format_new(folder, java, 1)
    node = local_nodes.start(folder, java, 1, own)
    try:
        local_nodes.wait_ready(settings, [node])  # at the broker's own door, which asks for nothing
        yield f"127.0.0.1:{door}"
    finally:
        daemons.stop([node.daemon])


def profile_text(name: str, servers: str, user: str, password: str) -> str:
    """A table of a profile file."""
    return f"""
[{name}]
bootstrap_servers = "{servers}"
[{name}.kafka]
"security.protocol" = "{_LISTENER}"
"sasl.mechanism" = "PLAIN"
"sasl.username" = "{user}"
"sasl.password" = "{password}"
"""


def _with_door(properties: str, port: int, passwords: Mapping[str, str]) -> str:
    users = " ".join(f'user_{user}="{password}"' for user, password in passwords.items())
    lines = []
    for line in properties.splitlines():
        if line.startswith(("listeners=", "advertised.listeners=")):
            line += f",{_LISTENER}://127.0.0.1:{port}"
        if line.startswith("listener.security.protocol.map="):
            line += f",{_LISTENER}:{_LISTENER}"
        lines.append(line)
    door = f"listener.name.{_LISTENER.lower()}"
    lines += [f"{door}.sasl.enabled.mechanisms=PLAIN", f"{door}.plain.sasl.jaas.config={_LOGIN.format(users=users)}"]
    return "\n".join([*lines, "inter.broker.listener.name=PLAINTEXT", ""])
