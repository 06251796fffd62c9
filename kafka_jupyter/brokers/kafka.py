"""Cluster: where Kafka is, how to talk to it, and our error for each of the client's. Message: a record as the log has it.

Only this room imports confluent_kafka: kafka.py, producer.py, reader.py, group.py and admin.py. Every error of the client leaves
them as one of `errors.BrokerError`, the original in `__cause__`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
import time
from typing import Any, cast

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers import transport
from kafka_jupyter.protocol.headers import STATEMENT
from kafka_jupyter.settings import Settings

Partition = tuple[str, int]

_AUTHENTICATION = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}
_AUTHORIZATION = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}
UNREACHABLE = {
    KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,  # it could not even be sent in time: a machine with too much to do
}  # fmt: skip
_ECHO = re.compile(r"""(Invalid value) ".*?" for""", re.DOTALL)
# A client that is refused says so each 30 s. A broker that restarts in the middle of a handshake looks the same, but once.
REFUSED_S = 60.0
_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}


@dataclasses.dataclass(frozen=True)
class Message:
    """One record as the log has it. `time_ms` is Kafka's append time, unless `dated`: then its writer chose it."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    dated: bool = False


class Cluster:
    """Where Kafka is and how to talk to it. Cheap to make; nothing is connected before it is used.

    Raises SettingsError where there is no Kafka, or others could read what is said to it (transport.py).
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.bootstrap_servers:
            raise errors.SettingsError(name="bootstrap_servers", why="no Kafka is configured and no local one runs", source="the settings")
        self.settings = settings
        self.servers = settings.bootstrap_servers
        self._trouble: dict[str, tuple[str, float]] = {}  # kind → what the client said last, and when
        self.weakness = transport.weakness(self.config())
        if self.weakness is not None and not settings.insecure:
            raise self.weakness

    def config(self, **more: Any) -> dict[str, Any]:
        """librdkafka's settings: ours, then what the profile passes through, then `more` with `_` for `.`."""
        base = redact.Guarded({
            "bootstrap.servers": self.servers,
            "client.id": "kafka_jupyter",
            "socket.connection.setup.timeout.ms": max(1000, int(self.settings.connect_timeout_s * 1000)),  # it takes no less
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "topic.metadata.refresh.interval.ms": 30_000,
            "log_level": 2,
        })  # fmt: skip
        base.update(self.settings.kafka)
        base.update({name.replace("_", "."): value for name, value in more.items()})
        base["error_cb"] = self._on_error
        return base

    def _on_error(self, error: KafkaError) -> None:
        """One of librdkafka's global errors: authentication failures appear only here."""
        kind = "authentication" if error.code() in _AUTHENTICATION else "connection"
        self._trouble[kind] = (error.str(), time.monotonic())

    @property
    def refused(self) -> bool:
        """Whether Kafka does not take our credentials, as far as the client has told us lately."""
        _said, when_s = self._trouble.get("authentication", ("", -math.inf))
        return time.monotonic() - when_s <= REFUSED_S

    def unreachable(self, error: KafkaError | None = None) -> errors.BrokerError:
        """The error for "nobody answered": wrong credentials look like silence, so they are looked up here."""
        if self.refused:
            return errors.AuthenticationFailed(servers=self.servers, detail=self._trouble["authentication"][0])
        detail = self._trouble.get("connection", ("", 0.0))[0] or (error.str() if error else "")
        return errors.BrokerUnreachable(servers=self.servers, detail=detail and f"({detail})")

    def error(self, error: KafkaError, topic: str = "", **fields: Any) -> errors.BrokerError:
        """Our error for one of the client's, most specific first."""
        code = error.code()
        if code in _AUTHENTICATION:
            return errors.AuthenticationFailed(servers=self.servers, detail=error.str())
        if code in _AUTHORIZATION:
            return errors.NotAuthorized(servers=self.servers, detail=error.str())
        if code in _MISSING:
            return errors.TopicMissing(servers=self.servers, topic=topic or "(a topic)")
        if code in _TOO_LARGE:
            return errors.RecordTooLarge(topic=topic, detail=error.str(), **fields)
        if code in _GONE:
            return errors.OffsetGone(topic=topic, **fields)
        if code in UNREACHABLE:
            return self.unreachable(error)
        return errors.BrokerError(servers=self.servers, detail=f"{error.name()}: {_without_value(error.str())}")

    def translated(self, exception: BaseException, topic: str = "", **fields: Any) -> errors.BrokerError:
        """Our error for an exception that the client raised, whatever it is."""
        if isinstance(exception, KafkaException) and exception.args and isinstance(exception.args[0], KafkaError):
            said = exception.args[0]
            _hush(exception, said)
            return self.error(said, topic, **fields)
        return errors.BrokerError(servers=self.servers, detail=f"{type(exception).__name__}: {exception}")


def _without_value(said: str) -> str:
    """What librdkafka says of a setting, without the value that it echoes: it may be a password in the wrong line."""
    return _ECHO.sub(r"\1 for", said)


def _hush(exception: KafkaException, said: KafkaError) -> None:
    """Tracebacks show the client's own exception too, as the cause of ours."""
    text = redact.clean(_without_value(str(said)))
    if text != str(said):
        exception.args = (text,)


# Of a name that is no UTF-8 the client gives half a list, with an exception set. CPython looks for that where C calls it, but not where its
# own interpreter has specialized the call (3.11 and later): there the exception would come up in the middle of something else.
_headers = operator.methodcaller("headers")
_UNREADABLE: tuple[tuple[str, bytes | None], ...] = ((STATEMENT, None),)  # no signature that anybody could have written


def message_of(message: confluent_kafka.Message) -> Message:
    kind, time_ms = message.timestamp()
    try:
        headers = tuple(cast("list[tuple[str, bytes | None]]", _headers(message) or []))
    except (SystemError, UnicodeDecodeError):
        headers = _UNREADABLE
    return Message(
        message.topic() or "",
        whole(message.partition()),
        whole(message.offset()),
        time_ms,
        message.key(),
        message.value(),
        headers,
        kind != confluent_kafka.TIMESTAMP_LOG_APPEND_TIME,
    )


def whole(number: int | None) -> int:
    """The client says None where it has no partition or offset to tell."""
    return -1 if number is None else number
