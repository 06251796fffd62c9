"""A producer of the Kafka client that met a fatal error never sends again; ours goes on with a new one."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaError, KafkaException

from kafka_jupyter import errors
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.settings import Settings
from tests.support.waiting import wait_until

RECORDS = 40
LIMIT = 2000  # bytes that a record of this topic may have
TOO_LARGE = 3
WAITS_S = 0.3  # so long a record must wait for the new client; without waiting it is refused at once


def test_after_a_fatal_error_every_record_is_accounted_for_and_writing_goes_on(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    # Where a gap is fatal, a record that the broker refuses for good is the way to meet a fatal error.
    cluster = Cluster(settings.replace(kafka={"enable.gapless.guarantee": True}))
    topic = f"{settings.topic_prefix}small"
    Admin(Cluster(settings)).create([(topic, 1, 1, {"max.message.bytes": str(LIMIT)})])
    outcomes: dict[int, errors.BrokerError | None] = {}
    busy, go_on, all_told = threading.Event(), threading.Event(), threading.Event()

    def told(i: int, error: errors.BrokerError | None) -> None:
        assert i not in outcomes, "told twice"
        outcomes[i] = error
        if i == 0:  # the producer's thread sits here and has not heard yet that its client is dead
            busy.set()
            assert go_on.wait(15)
        if len(outcomes) == RECORDS:
            all_told.set()

    with contextlib.closing(Producer(cluster)) as producer, ThreadPoolExecutor(1) as pool:

        def send(i: int) -> None:
            value = b"x" * (2 * LIMIT if i == TOO_LARGE else 10)
            producer.send(topic, 0, str(i).encode(), value, (), lambda error, _offset: told(i, error))

        def dead() -> bool:
            try:
                producer._client.produce(topic, b"probe", partition=0)
            except KafkaException as failure:
                return bool(failure.args[0].code() == KafkaError._FATAL)
            return False

        assert producer.write(topic, 0, b"before", b"", ()) == 0
        try:
            send(0)
            assert busy.wait(15)
            pool.submit(lambda: [send(i) for i in range(1, RECORDS // 2)])  # some of these may wait already
            wait_until(dead, "the broker has not refused the large record")
            rest = pool.submit(lambda: [send(i) for i in range(RECORDS // 2, RECORDS)])
            with pytest.raises(TimeoutError):
                rest.result(WAITS_S)
            assert producer.flush(0) > 0  # takes no notice away from the thread
        finally:
            go_on.set()
        rest.result(15)
        assert all_told.wait(15), f"nobody knows what became of {RECORDS - len(outcomes)} records"
        assert isinstance(outcomes[TOO_LARGE], errors.RecordTooLarge)
        told_errors = {type(error) for error in outcomes.values() if error is not None}
        assert told_errors <= {errors.RecordTooLarge, errors.DeliveryUnknown}  # the former also for what shared its request
        assert producer.write(topic, 0, b"after", b"", ()) > 0
        assert "met a fatal error and is made anew" in caplog.text
