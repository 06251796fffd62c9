"""What runs on the workers of every system: plain Keras."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TINY_ROWS = 64


def fit(model: Any, x: Any, y: Any, epochs: int, batch_size: int, report: Callable[[float], None]) -> list[Any]:
    """The trained weights; `report(time.time())` at the end of each epoch."""
    import keras

    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: report(time.time()))
    model.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[note])
    return list(model.get_weights())


def tiny(number: int) -> int:  # noqa: ARG001  # no two calls are the same, or a system might remember the answer
    """One epoch on 64 rows, of a new model; the number of weights it has."""
    from benchmarks import work

    model = work.mlp()
    x, y = work.digits()
    model.fit(x[:TINY_ROWS], y[:TINY_ROWS], epochs=1, verbose=0)
    return len(model.get_weights())


def began(number: int) -> float:  # noqa: ARG001  # as above
    return time.time()
