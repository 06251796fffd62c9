"""Tests wait for a condition and say which: nobody sleeps and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], message: str, within: float = 30.0, longest_pause_s: float = 0.05) -> T:
    """The first true value of `condition()`. AssertionError with `message` and the last value after `within` seconds.

    Looks cost processor time that others need: the pause between two of them is 10 ms at first, then a tenth of what has been waited, and
    never more than `longest_pause_s`. Where each look is itself the load that is tested, 0.01 keeps it up.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > within:
            raise AssertionError(f"{message} (waited {within:g} s; the last value was {value!r})")
        time.sleep(min(max(0.01, waited / 10), longest_pause_s))
    return value
