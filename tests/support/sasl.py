"""A Kafka that asks for name and password (SASL/PLAIN), in a folder of its own."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping

from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, AdminClient, ResourcePatternType, ResourceType

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.local_nodes import free_port
from kafka_jupyter.settings import Settings
from tests.support.door import kafka_with_door

SUPER = "ada"  # may do everything; what others may do is for ACLs to say
_AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required {users};"


@contextlib.contextmanager
def kafka_with_passwords(folder: pathlib.Path, passwords: Mapping[str, str]) -> Iterator[str]:
    """The address at which the broker takes these users and nobody else; all but SUPER need rights."""
    users = " ".join(f'user_{user}="{password}"' for user, password in passwords.items())
    door = "listener.name.door"
    properties = [f"{door}.sasl.enabled.mechanisms=PLAIN", f"{door}.plain.sasl.jaas.config={_LOGIN.format(users=users)}"]
    properties += [f"authorizer.class.name={_AUTHORIZER}", f"super.users=User:ANONYMOUS;User:{SUPER}"]
    port = free_port()
    with kafka_with_door(folder, "SASL_PLAINTEXT", port, port, properties):
        yield f"127.0.0.1:{port}"


def allow(settings: Settings, user: str, rights: Iterable[tuple[ResourceType, str, AclOperation]]) -> None:
    """`settings`: of SUPER. A right: on what, the beginning of its name, to do what."""
    allowed, prefixed = AclPermissionType.ALLOW, ResourcePatternType.PREFIXED
    acls = [AclBinding(kind, name, prefixed, f"User:{user}", "*", operation, allowed) for kind, name, operation in rights]
    client = AdminClient(Cluster(settings).config())
    for future in client.create_acls(acls).values():
        future.result(10)


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
