"""The card of a cell, kept up to date: by the cell while it waits, by a thread afterwards, and once more after any cell."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from kafka_jupyter.client import TrainingRun
from kafka_jupyter.client.handle import LAST_ROWS_S
from kafka_jupyter.errors import KafkaJupyterError
from kafka_jupyter.notebook.card import PERIOD, Card
from kafka_jupyter.protocol.rows import LogLine
from kafka_jupyter.runs.view import row_json


class CellView:
    """A `capture.view.View` in a notebook: one card a cell, its runs are rows of it."""

    def __init__(self, headless: bool, waiting: bool, on_show: Callable[[TrainingRun], None]) -> None:
        self.finished = False
        self._headless = headless
        self._waiting = waiting
        self._on_show = on_show
        self._card: Card | None = None
        self._runs: list[TrainingRun] = []
        self._rows: dict[str, Converted] = {}
        self._ended: dict[str, float] = {}  # when we saw first that a run had ended
        self._lock = threading.RLock()

    def note(self, text: str) -> None:
        print(text, flush=True)

    def show(self, run: TrainingRun) -> None:
        with self._lock:
            self._runs.append(run)
            self._rows[run.id] = Converted(run)
            self._on_show(run)
            if self._card is None:
                self._card = Card(live=not self._headless, waiting=self._waiting, on_action=self._act)
                self._card.show(self._states(), self._rows_now())
            else:
                self.refresh()

    def refresh(self) -> None:
        with self._lock:
            if self._card is not None and not self.finished:
                self._card.update(self._states(), self._rows_now)

    def close(self) -> None:
        """A block of the cell is over; the card is the cell's, and others may follow."""
        self.refresh()

    def end(self) -> None:
        """The cell is over. Runs that go on are followed by a thread, so that the card moves while other cells run, or none."""
        self.settle()
        if self._card is None or self.finished:
            return
        if self._headless:
            with self._lock:
                self._card.finish(self._states(), self._rows_now())
        else:
            self._card.stop_waiting()
            threading.Thread(target=self._follow, name="kafka_jupyter-card", daemon=True).start()

    def settle(self) -> None:
        """The final picture, if all runs have ended and their last rows are here."""
        if self._headless and not self.finished:
            self._await_rows()  # no thread goes on after this cell, and it may be the last one
        with self._lock:
            if self._card is not None and not self.finished and all(self._is_over(run) for run in self._runs):
                self.finished = True
                self._card.finish(self._states(), self._rows_now())

    def _is_over(self, run: TrainingRun) -> bool:
        """The last rows stand in another topic than the end: they may come a moment later, and are not waited for for ever."""
        if not run.ended:
            return False
        ended = self._ended.setdefault(run.id, time.monotonic())
        return run.complete or time.monotonic() - ended >= LAST_ROWS_S

    def _await_rows(self) -> None:
        for run in [run for run in self._runs if run.ended and not run.complete]:
            with contextlib.suppress(KafkaJupyterError):
                run.wait_for_end(LAST_ROWS_S)

    def _follow(self) -> None:
        tick = threading.Event()
        while not self.finished and not tick.wait(PERIOD):
            self.refresh()
            self.settle()

    def _states(self) -> list[dict[str, Any]]:
        return [run.card() for run in self._runs]

    def _rows_now(self) -> dict[str, Sequence[dict[str, Any]]]:
        return {run.id: self._rows[run.id].now() for run in self._runs}

    def _act(self, run_id: str, action: str) -> None:
        """A button of the widget, where no server is reachable."""
        run = next((run for run in self._runs if run.id == run_id), None)
        if run is None:
            return
        try:
            made = getattr(run, action)()
            if isinstance(made, TrainingRun):  # a retry stands beside the run that it goes on for
                self.show(made)
        except KafkaJupyterError as error:
            self.note(str(error))


class Converted:
    """The rows of a run as the page gets them, without the lines, which no card shows. What was converted once is kept: there may be
    100,000 epochs, and a few new ones at each look."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._rows: dict[tuple[int, int], dict[str, Any]] = {}  # by attempt and seq
        self._complete = False

    def now(self) -> Sequence[dict[str, Any]]:
        if not self._complete:
            complete = self._run.complete  # asked before the rows are read: more may come in between
            with contextlib.suppress(KafkaJupyterError):  # Kafka is away, and rows of a run that ended long ago must be read
                known = self._rows
                rows = ((attempt, row) for attempt, row in self._run.rows() if not isinstance(row, LogLine))
                self._rows = {(n, row.seq): known.get((n, row.seq)) or row_json(n, row) for n, row in rows}
                self._complete = complete
        return list(self._rows.values())
