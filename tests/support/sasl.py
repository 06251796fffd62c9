"""A Kafka that asks for name and password (SASL/PLAIN), in a folder of its own."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping

from tests.support.door import free_port, kafka_with_door

_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required {users};"


@contextlib.contextmanager
def kafka_with_passwords(folder: pathlib.Path, passwords: Mapping[str, str]) -> Iterator[str]:
    """The address at which the broker takes these users and nobody else."""
    users = " ".join(f'user_{user}="{password}"' for user, password in passwords.items())
    door = "listener.name.door"
    properties = [f"{door}.sasl.enabled.mechanisms=PLAIN", f"{door}.plain.sasl.jaas.config={_LOGIN.format(users=users)}"]
    port = free_port()
    with kafka_with_door(folder, "SASL_PLAINTEXT", port, port, properties):
        yield f"127.0.0.1:{port}"


def profile_text(name: str, servers: str, user: str, password: str) -> str:
    """A table of a profile file."""
    return f"""
[{name}]
bootstrap_servers = "{servers}"
[{name}.kafka]
"security.protocol" = "SASL_PLAINTEXT"
"sasl.mechanism" = "PLAIN"
"sasl.username" = "{user}"
"sasl.password" = "{password}"
"""
