"""The Kafka client believes that a record was written because a later one was; on a new partition it is not in the log.

The broker refuses the first request (a byte was changed on the way) and takes the second one, which the client had sent behind it:
it knows nothing of this producer yet, so any sequence number is right. What the client reports as delivered is then lost.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.outbox import Outbox
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.topics import CHUNK, RUN_CONTROL, TASK
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from tests.support.playing import task
from tests.support.waiting import wait_until
from tests.support.wire import Wire, kafka_behind_a_wire

TOGETHER = 5  # requests that the client has on their way to a broker at once
PADDING = "-" * (400 << 10)  # characters: so that not all records share the first request


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with kafka_behind_a_wire(tmp_path_factory.mktemp("wire")) as made:
        yield made


@pytest.fixture
def log(wire: Wire, bare_settings: Settings) -> Iterator[Log]:
    """Topics that nobody has written to."""
    settings = bare_settings.replace(bootstrap_servers=wire.servers, topic_prefix=f"w{ids.new_nonce()[:8]}.", partitions=1)
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        wait_until(lambda: not log.look(2.0) and not log.trouble, "Kafka does not answer")
        yield log


def keys(log: Log, topic: str) -> list[bytes | None]:
    return [message.key for place in log.topics.all_places(topic) for message in log.read_range(place, 0, None)]


def test_what_the_client_only_believes_to_be_delivered_is_reported_so(wire: Wire, log: Log) -> None:
    """And the premise: some of it really is not there."""
    topic, partition = log.topics.place(RUN_CONTROL, "r")
    outcomes: dict[int, tuple[errors.BrokerError | None, int]] = {}
    all_told = threading.Event()

    def told(i: int, error: errors.BrokerError | None, offset: int) -> None:
        outcomes[i] = (error, offset)
        if len(outcomes) == TOGETHER:
            all_told.set()

    values = [f"record-{i}-".encode() + os.urandom(1 << 20) for i in range(TOGETHER)]  # too large to share a request
    wire.damage(b"record-0-")
    for i, value in enumerate(values):  # the second must be on its way before the first is refused
        log.producer.send(topic, partition, str(i).encode(), value, (), lambda error, offset, i=i: told(i, error, offset))
    assert all_told.wait(30)
    assert wire.damaged
    believed = {i for i, (error, _) in outcomes.items() if isinstance(error, errors.DeliveryInferred)}
    written = {int(key or b"") for key in keys(log, RUN_CONTROL)}
    assert 0 in believed
    assert 0 not in written
    assert set(range(TOGETHER)) - believed <= written


def test_a_task_is_in_the_log_when_submit_returns(wire: Wire, log: Log) -> None:
    run_ids = [ids.new_run_id("digits") for _ in range(TOGETHER)]
    wire.damage(run_ids[0].encode())
    with ThreadPoolExecutor(TOGETHER) as pool:
        places = list(pool.map(lambda run_id: log.write_task(task(run_id, padding=PADDING)), run_ids))
    assert wire.damaged
    assert {log.read_task(place, run_id).run_id for place, run_id in zip(places, run_ids, strict=True)} == set(run_ids)
    assert {key.decode() for key in keys(log, TASK) if key} == set(run_ids)


def test_an_upload_is_whole(wire: Wire, log: Log, bare_settings: Settings) -> None:
    data = b"begin" + os.urandom(6 * CHUNK)
    with contextlib.closing(open_store(bare_settings, log)) as store:
        wire.damage(data[:64])
        ref = store.put("state", len(data), [data])
        assert wire.damaged
        assert store.read(ref) == data


def test_a_record_of_the_outbox_is_sent_again(wire: Wire, log: Log) -> None:
    run_ids = [ids.new_run_id("digits") for _ in range(TOGETHER)]
    outbox = Outbox(log)
    wire.damage(run_ids[0].encode())
    for run_id in run_ids:
        outbox.put(control.Submitted(run_id=run_id, task=control.TaskPlace("task", 0, 0), cell=PADDING))

    def all_there() -> bool:  # nobody says `saw`: only a record that was not written goes out twice
        outbox.tick()
        return {key.decode() for key in keys(log, RUN_CONTROL) if key} == set(run_ids)

    wait_until(all_there, "a record of the outbox was lost")
    assert wire.damaged


def test_records_of_one_run_stand_in_the_log_in_the_order_in_which_they_were_put(wire: Wire, log: Log) -> None:
    run_id, other = ids.new_run_id("digits"), ids.new_run_id("digits")
    place = control.TaskPlace("task", 0, 0)
    first = control.Submitted(run_id=run_id, task=place, cell=PADDING)
    second = control.StopRequested(run_id=run_id, request_id="r", by="ada@test")
    outbox, follower = Outbox(log), Follower(log)
    follower.subscribe(lambda change: change.record is None or outbox.saw(change.record))
    with contextlib.closing(follower):
        follower.start()
        wire.damage(run_id.encode())
        for record in (first, *(control.Submitted(run_id=other, task=place, cell=PADDING, name=str(i)) for i in range(TOGETHER)), second):
            outbox.put(record)

        def both_there() -> list[bytes | None]:
            outbox.tick()
            written = keys(log, RUN_CONTROL)
            return written if written.count(run_id.encode()) >= 2 else []

        wait_until(both_there, "a record was lost")
    assert wire.damaged
    records = [log.decode(message) for place in log.topics.all_places(RUN_CONTROL) for message in log.read_range(place, 0, None)]
    assert [record for record in records if isinstance(record, control.Record) and record.run_id == run_id][:2] == [first, second]
