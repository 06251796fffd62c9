"""Topics that take small records only, as an operator may have set them."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.log import Log
from tests.support.waiting import wait_until

USUAL = 1 << 20  # bytes


def take_at_most(log: Log, base: str, size: int = USUAL) -> None:
    """From now on this topic takes records of at most `size` bytes."""
    name = log.topics.name(base)
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": log.cluster.servers})
    for future in client.incremental_alter_configs([resource]).values():
        future.result(10)
    admin = Admin(log.cluster)
    wait_until(lambda: admin.configs([name])[name]["max.message.bytes"] == str(size), "the topic's limit does not change")
