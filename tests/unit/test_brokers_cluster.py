"""What a Cluster makes of the errors that its clients tell of themselves."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from kafka_jupyter import errors
from kafka_jupyter.brokers import kafka
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.settings import Settings


def test_credentials_that_were_refused_once_do_not_explain_every_later_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(Settings(bootstrap_servers="127.0.0.1:1"))
    tell = cluster.config()["error_cb"]
    tell(KafkaError(KafkaError._SSL, "the broker restarted in the middle of the handshake"))
    assert cluster.refused
    assert isinstance(cluster.unreachable(), errors.AuthenticationFailed)
    monkeypatch.setattr(kafka, "REFUSED_S", -1.0)  # as if more than a minute had gone by
    tell(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    assert not cluster.refused
    silence = cluster.unreachable()
    assert isinstance(silence, errors.BrokerUnreachable)
    assert "connection refused" in str(silence)
