"""A Kafka of a test's own, one broker, that can be killed, frozen and brought back at its old address."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from kafka_jupyter.brokers import local
from kafka_jupyter.settings import Settings
from tests.support.waiting import wait_until


class BreakableKafka:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.servers = local.up(settings, 1).servers

    def kill(self) -> None:
        """As a power cut takes it."""
        os.kill(self._pid(), signal.SIGKILL)
        wait_until(lambda: local.endpoint(self._settings) is None, "the broker survived SIGKILL")

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self._pid(), signal.SIGSTOP)

    def bring_back(self) -> None:
        if local.endpoint(self._settings) is None:
            assert local.up(self._settings, 1).servers == self.servers, "somebody else has taken its port"
        else:
            os.kill(self._pid(), signal.SIGCONT)

    def _pid(self) -> int:
        found = local.recorded(self._settings)
        assert found is not None
        (pid,) = found.pids
        return pid


@contextlib.contextmanager
def breakable_kafka(settings: Settings) -> Iterator[BreakableKafka]:
    kafka = BreakableKafka(settings)
    try:
        yield kafka
    finally:
        if local.endpoint(settings) is not None:
            kafka.bring_back()  # a frozen one takes no SIGTERM
        local.down(settings)
