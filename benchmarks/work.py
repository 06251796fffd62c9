"""The work that is measured: the quickstart's MLP on scikit-learn's digits, and a training so small that only the way counts."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

EPOCHS = 20

Array = np.ndarray[Any, np.dtype[Any]]
Seen = Callable[[], None]


@functools.cache
def digits() -> tuple[Array, Array]:
    """1797 × 64 in 0..1 and the labels: x is 449 KiB (into the store), y 14 KiB (into the record)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.data / 16).astype("float32"), found.target


def mlp() -> Any:
    import keras

    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@functools.cache
def images() -> tuple[Array, Array]:
    """The digits as 28 × 28 × 1 pictures, each pixel of theirs 3.5 × 3.5 of these: 5.4 MiB."""
    x, y = digits()
    small = x.reshape(-1, 8, 8)
    at = (np.arange(28) * 8 // 28).astype(int)
    return np.ascontiguousarray(small[:, at][:, :, at, None]), y


def cnn() -> Any:
    import keras

    layers = [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@functools.cache
def rows() -> tuple[Array, Array]:
    """50,000 × 32, and whether a linear form of each is positive: 6.1 MiB."""
    chance = np.random.default_rng(0)
    x = chance.normal(size=(50_000, 32)).astype("float32")
    return x, (x @ chance.normal(size=32) > 0).astype("float32")


def wide() -> Any:
    import keras

    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def fit_here(model: Any, epochs: int = EPOCHS) -> tuple[float, float]:
    """Trained in this process, without a progress bar: seconds to the end of the first epoch and to the end."""
    import keras

    ends: list[float] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    started = time.perf_counter()
    model.fit(*digits(), epochs=epochs, verbose=0, callbacks=[note])
    return ends[0] - started, time.perf_counter() - started
