"""A producer of the Kafka client that met a fatal error never sends again; ours goes on with a new one."""

from __future__ import annotations

import contextlib
import threading

import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.settings import Settings

RECORDS = 40
LIMIT = 2000  # bytes that a record of this topic may have
TOO_LARGE = 3
BUSY_S = 0.6  # so long the producer's thread sits in a callback: it has not heard yet that its client is dead
REFUSED_S = 0.3  # until the broker has refused the large record, in that time


def test_after_a_fatal_error_every_record_is_accounted_for_and_writing_goes_on(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    # Where a gap is fatal, a record that the broker refuses for good is the way to meet a fatal error.
    cluster = Cluster(settings.replace(kafka={"enable.gapless.guarantee": True}))
    topic = f"{settings.topic_prefix}small"
    Admin(Cluster(settings)).create([(topic, 1, 1, {"max.message.bytes": str(LIMIT)})])
    outcomes: dict[int, errors.BrokerError | None] = {}
    busy, all_told = threading.Event(), threading.Event()

    def told(i: int, error: errors.BrokerError | None) -> None:
        assert i not in outcomes, "told twice"
        outcomes[i] = error
        if i == 0:
            busy.set()
            threading.Event().wait(BUSY_S)
        if len(outcomes) == RECORDS:
            all_told.set()

    with contextlib.closing(Producer(cluster)) as producer:
        assert producer.write(topic, 0, b"before", b"") == 0
        for i in range(RECORDS):
            if i > 0:
                assert busy.wait(15)
            if i == RECORDS // 2:  # the second half meets a dead client
                threading.Event().wait(REFUSED_S)
            value = b"x" * (2 * LIMIT if i == TOO_LARGE else 10)
            producer.send(topic, 0, str(i).encode(), value, on_delivery=lambda error, _offset, i=i: told(i, error))  # type: ignore[misc]
        assert all_told.wait(15), f"nobody knows what became of {RECORDS - len(outcomes)} records"
        assert isinstance(outcomes[TOO_LARGE], errors.RecordTooLarge)
        told_errors = {type(error) for error in outcomes.values() if error is not None}
        assert told_errors <= {errors.RecordTooLarge, errors.DeliveryUnknown}  # the former also for what shared its request
        assert producer.write(topic, 0, b"after", b"") > 0
        assert "met a fatal error and is made anew" in caplog.text
