"""One connection per process and cluster, shared by all clients and handles: a log, a store, a follower, an outbox.

A forked child makes its own: the threads of the Kafka client do not survive a fork, and closing what the parent uses would hang.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import hashlib
import os
import secrets
import threading
import time

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.outbox import Outbox
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, open_store

logger = redact.logger(__name__)

FOLLOW_TIMEOUT_S = 30.0  # to catch up with the log
CATCH_UP_S = 5.0  # to read what was in the log when somebody asked
OUTBOX_PERIOD_S = 0.5
LOOK_PERIOD_S = 2.0  # between two looks whether Kafka is there, and how long it has to answer
RECONNECT_S = 0.5
ON_ITS_WAY_S = 1.0  # what we have sent is waited for before we ask where the log ends
FAREWELL_S = 2.0  # a process that ends waits so long for its Submitted records

Key = bytes
_KEY = secrets.token_bytes(32)


class Connection:
    """Opened by `connect`. Raises BrokerUnreachable, AuthenticationFailed, TopicMissing, TopicMismatch within the connect timeout."""

    def __init__(self, settings: Settings, create_topics: bool) -> None:
        # A send that is not confirmed by then is reported as unknown: a person waits for it.
        patience = min(settings.delivery_timeout_s, settings.connect_timeout_s)
        self.settings = settings.replace(delivery_timeout_s=patience)
        self.log = Log.open(Cluster(self.settings), create_topics)
        self.outbox = Outbox(self.log)
        self._store: Store | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._follower, self._following = self._follow()
        threading.Thread(target=self._serve, name="kafka_jupyter-outbox", daemon=True).start()

    @property
    def store(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = open_store(self.settings, self.log)
            return self._store

    def follower(self, timeout_s: float = FOLLOW_TIMEOUT_S) -> Follower:
        """The follower, caught up; waits for that the first time. Raises what stopped it, and BrokerUnreachable when it takes too long:
        it goes on then, and the next one who asks waits for the same."""
        with self._lock:
            following = self._following
            if following.done() and (following.exception() is not None or not following.result().alive):
                self._follower, following = self._follow()
                self._following = following
        try:
            return following.result(timeout_s)
        except concurrent.futures.TimeoutError:
            raise self.log.cluster.unreachable() from None

    def patient_follower(self, deadline_s: float | None = None) -> Follower | None:
        """As `follower`, for whoever waits for a run that is in the log already: while Kafka is away, it is asked again and again.

        None when the deadline (of time.monotonic) has passed.
        """
        while deadline_s is None or time.monotonic() < deadline_s:
            left = FOLLOW_TIMEOUT_S if deadline_s is None else deadline_s - time.monotonic()
            try:
                return self.follower(max(0.0, left))
            except errors.BrokerUnreachable as away:
                logger.info("reconnecting: %s", away)
                self._closed.wait(min(RECONNECT_S, max(0.0, left)))
        return None

    def peek(self) -> Follower | None:
        """The follower if it is there already: for `repr` and the like, which never wait."""
        following = self._following
        return following.result() if following.done() and following.exception() is None else None

    def catch_up(self) -> Follower:
        """The follower, after it has read every control record that was in the log, or on its way there from us, when this was called."""
        follower = self.follower()
        self.log.producer.flush(ON_ITS_WAY_S)
        reader = Reader(self.log.cluster)
        try:
            ends = {place: reader.bounds(place)[1] for place in self.log.topics.all_places(topics.RUN_CONTROL)}
        finally:
            reader.close()
        follower.wait(lambda: all(follower.position(place) >= end for place, end in ends.items()), CATCH_UP_S)
        return follower

    def announce(self, record: control.Record) -> None:
        """Sends it (a Submitted, say), again and again until it is read back."""
        self.outbox.put(record)

    def look_ahead(self) -> None:
        """A submit is being prepared: what the store has to be asked for is asked meanwhile."""

        def look() -> None:
            try:
                self.store.look_ahead()
            except (errors.KafkaJupyterError, RuntimeError) as failure:  # RuntimeError: we were closed meanwhile
                logger.info("not looked ahead: %s", failure)

        threading.Thread(target=look, name="kafka_jupyter-look-ahead", daemon=True).start()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        if self._closed.is_set():
            return
        self.log.producer.flush(FAREWELL_S)
        self._closed.set()
        self._follower.close()
        if self._store is not None:
            self._store.close()
        self.log.close()

    def _follow(self) -> tuple[Follower, concurrent.futures.Future[Follower]]:
        """A new one. It catches up on a thread of its own, so that the first submit does not wait for it."""
        future: concurrent.futures.Future[Follower] = concurrent.futures.Future()
        follower = Follower(self.log)
        follower.subscribe(self._saw)

        def start() -> None:
            try:
                follower.catch_up()
            except BaseException as failure:  # noqa: BLE001  # handed to whoever asks for the follower
                follower.close()
                future.set_exception(failure)
            else:
                future.set_result(follower)

        threading.Thread(target=start, name="kafka_jupyter-connect", daemon=True).start()
        return follower, future

    def _saw(self, change: Change) -> None:
        if change.record is not None:
            self.outbox.saw(change.record)

    def _serve(self) -> None:
        """Sends again what was not read back, and looks whether Kafka is there."""
        look_at = time.monotonic()
        while not self._closed.wait(OUTBOX_PERIOD_S):
            self.outbox.tick()
            if time.monotonic() >= look_at:
                self.log.look(LOOK_PERIOD_S)
                look_at = time.monotonic() + LOOK_PERIOD_S


_open: dict[Key, Connection] = {}
_inherited: list[Connection] = []  # of the parent process: kept, because even their destructors talk to its threads
_lock = threading.Lock()


def connect(settings: Settings) -> Connection:
    """The connection for these settings; with no Kafka configured, that of the running local one."""
    resolved = local.resolve(settings)
    key = _key(resolved)
    with _lock:
        found = _open.get(key)
        if found is None:
            found = _open[key] = Connection(resolved, create_topics=not settings.bootstrap_servers)
        return found


def known(settings: Settings) -> Connection | None:
    """The connection if it is open; never waits for Kafka."""
    return _open.get(_key(settings)) if settings.bootstrap_servers else None


def opened() -> list[Connection]:
    return list(_open.values())


def disconnect(connection: Connection) -> None:
    """Closes it for everybody in this process; the next use opens a new one."""
    with _lock:
        for key in [key for key, open_one in _open.items() if open_one is connection]:
            del _open[key]
    connection.close()


def _key(settings: Settings) -> Key:
    """A digest, keyed for this process: what stands in here would be told by a traceback that shows variables."""
    which = (
        settings.bootstrap_servers,
        settings.insecure,
        settings.topic_prefix,
        settings.store,
        settings.store_limit,
        settings.cache_dir,
        settings.key_dir,
        settings.trust_file,
        settings.trust_policy,
        sorted(settings.kafka.items()),
        settings.connect_timeout_s,
        settings.delivery_timeout_s,
    )
    return hashlib.blake2b(repr(which).encode(), key=_KEY).digest()


def _close_all() -> None:
    for connection in opened():
        connection.close()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _inherited.extend(_open.values())
    _open.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)
