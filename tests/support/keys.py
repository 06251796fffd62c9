"""Keys of the tests: one that is trusted with everything, as `kafka-jupyter up` makes it."""

from __future__ import annotations

import time

from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import keeping
from kafka_jupyter.trust.listed import Role


def trust_ourselves(settings: Settings) -> None:
    """In the trust file of these settings."""
    now_ms = int(time.time() * 1000)
    key, _ = keeping.own_key(settings, now_ms)
    keeping.trust(settings, keeping.Exported(key.public, "the tests"), list(Role), now_ms, at_once=True)
