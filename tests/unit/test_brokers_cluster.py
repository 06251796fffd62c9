"""What a Cluster makes of the errors that its clients tell of themselves."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

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


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._ALL_BROKERS_DOWN, errors.BrokerUnreachable),
        (KafkaError._TRANSPORT, errors.BrokerUnreachable),
        (KafkaError._TIMED_OUT, errors.BrokerUnreachable),
        (KafkaError._TIMED_OUT_QUEUE, errors.BrokerUnreachable),
        (KafkaError.SASL_AUTHENTICATION_FAILED, errors.AuthenticationFailed),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, errors.NotAuthorized),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, errors.TopicMissing),
        (KafkaError.MSG_SIZE_TOO_LARGE, errors.RecordTooLarge),
        (KafkaError.OFFSET_OUT_OF_RANGE, errors.OffsetGone),
        (KafkaError.INVALID_CONFIG, errors.BrokerError),
    ],
)
def test_each_of_the_clients_errors_is_the_one_of_ours_that_says_what_to_do(code: int, kind: type[errors.BrokerError]) -> None:
    cluster = Cluster(Settings(bootstrap_servers="127.0.0.1:1"))
    failure = cluster.translated(KafkaException(KafkaError(code, "what the client says")), "run_control", size=7, partition=0, offset=3)
    assert type(failure) is kind
    assert "127.0.0.1:1" in str(failure) or "run_control" in str(failure)
