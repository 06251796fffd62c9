"""What a person sees while a captured `fit` runs. The notebook puts its card here; elsewhere it is lines of text."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from kafka_jupyter.client import TrainingRun

PERIOD_S = 0.5  # between two updates of the line in a terminal


class View(Protocol):
    """Of one cell or block; its methods are called on the thread that waits."""

    def note(self, text: str) -> None:
        """One line, now."""

    def show(self, run: TrainingRun) -> None:
        """A run of this cell, from now on."""

    def refresh(self) -> None:
        """Called several times a second while a `fit` waits."""

    def close(self) -> None:
        """The cell is over; its runs may go on."""


class Lines:
    """A line a run at its beginning and end; in a terminal one that moves in between."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._moving = self._out.isatty()
        self._runs: list[TrainingRun] = []
        self._next = 0.0

    def note(self, text: str) -> None:
        self._wipe()
        print(text, file=self._out, flush=True)

    def show(self, run: TrainingRun) -> None:
        self._runs.append(run)
        self.note(_line(run))

    def refresh(self) -> None:
        now = time.monotonic()
        if self._moving and self._runs and now >= self._next:
            self._next = now + PERIOD_S
            self._wipe()
            print(_line(self._runs[-1]), end="", file=self._out, flush=True)
        self._say_ended()

    def close(self) -> None:
        self._say_ended()

    def _say_ended(self) -> None:
        for run in [run for run in self._runs if run.ended]:
            self._runs.remove(run)
            self.note(_line(run))

    def _wipe(self) -> None:
        if self._moving:
            print("\r\x1b[K", end="", file=self._out)


def _line(run: TrainingRun) -> str:
    return ": ".join(filter(None, (run.summary(), run.waiting)))
