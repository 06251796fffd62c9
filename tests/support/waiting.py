"""Tests wait for a condition and say which: nobody sleeps and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], message: str, within: float = 30.0) -> T:
    """The first true value of `condition()`. AssertionError with `message` and the last value after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{message} (waited {within:g} s; the last value was {value!r})")
        time.sleep(0.01)  # between two looks: this is how tests wait for a condition
    return value
