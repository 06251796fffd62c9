"""What checkpoints cost a training: `fit` with none, with as many as the defaults allow, and with one at every epoch's end."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time

from benchmarks import work
from benchmarks.bench import Bench, say
from benchmarks.report import Chapter, Figure, spread
from kafka_jupyter.protocol import frames

HOW = """The MLP of the quickstart on scikit-learn's digits, 60 epochs of 57 batches, in this process, with the callback that writes
checkpoints in a worker's child; what it writes is deleted at once, as a supervisor does that has stored it. *The defaults*: none within
`checkpoint_gap_s` (1 s) of the last, and no more than `checkpoint_share` (5%) of the time. *Every epoch*: 0 and 1."""

EPOCHS = 60
NONE = frames.Cadence(every_s=1e9, gap_s=1e9)
WAYS = {"none": NONE, "the defaults": frames.Cadence(), "every epoch": frames.Cadence(gap_s=0.0, share=1.0)}


def measure(bench: Bench) -> Chapter:
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    written: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(bench.scale.rounds + 1):
            say(f"checkpoints, {i} of {bench.scale.rounds}" if i else "checkpoints: warm-up")
            for j in range(len(WAYS)):
                name = list(WAYS)[(i + j) % len(WAYS)]
                took, written[name] = _fit(WAYS[name], folder)
                seconds[name] += [took] if i else []
    base = statistics.median(seconds["none"])
    figures = []
    for name in ("the defaults", "every epoch"):
        ratio = statistics.median(seconds[name]) / base
        value = f"{ratio:.3f} × `fit` without: {spread(seconds[name])} against {spread(seconds['none'])}, {written[name]} checkpoints"
        target = ("≤ 1.05 ×", ratio <= 1.05) if name == "the defaults" else ()
        figures.append(Figure(f"checkpoints: {name}", value, *target))
    return Chapter("What checkpoints cost", HOW, figures)


def _fit(cadence: frames.Cadence, folder: str) -> tuple[float, int]:
    """Seconds, and how many checkpoints were written."""
    import keras

    from kafka_jupyter.training.adapter import Passes, ShuffledArrays
    from kafka_jupyter.training.checkpoint import Checkpointer

    saved: list[frames.Saved] = []

    def take(frame: frames.Frame) -> None:
        assert isinstance(frame, frames.Saved)
        saved.append(frame)
        pathlib.Path(frame.file).unlink()

    model, history = work.mlp(), keras.callbacks.History()
    adapter = ShuffledArrays(*work.digits(), seed=7)
    checkpointer = Checkpointer(take, folder, cadence)
    checkpointer.watch([history], Passes(adapter.num_batches))
    begun = time.perf_counter()
    model.fit(adapter, epochs=EPOCHS, verbose=0, callbacks=[history, checkpointer])
    return time.perf_counter() - begun, len(saved)
