"""Real workers for the acceptance tests, as the tests on Kafka use them."""

from __future__ import annotations

from tests.kafka.conftest import module_settings, own, shared
from tests.notebook.conftest import kernel_env

__all__ = ["kernel_env", "module_settings", "own", "shared"]
