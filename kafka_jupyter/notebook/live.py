"""The card of a cell, kept up to date: by the cell while it waits, by a thread afterwards, and once more after any cell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from kafka_jupyter.client import TrainingRun
from kafka_jupyter.errors import KafkaJupyterError
from kafka_jupyter.notebook.card import PERIOD, Card
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
        self._rows: dict[str, Sequence[dict[str, Any]]] = {}  # of ended runs: they do not change any more
        self._lock = threading.RLock()

    def note(self, text: str) -> None:
        print(text, flush=True)

    def show(self, run: TrainingRun) -> None:
        with self._lock:
            self._runs.append(run)
            self._on_show(run)
            if self._card is None:
                self._card = Card(live=not self._headless, waiting=self._waiting, on_action=self._act)
                self._card.show(*self._now())
            else:
                self._card.update(*self._now())

    def refresh(self) -> None:
        with self._lock:
            if self._card is not None and not self.finished:
                self._card.update(*self._now())

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
                self._card.finish(*self._now())
        else:
            self._card.stop_waiting()
            threading.Thread(target=self._follow, name="kafka_jupyter-card", daemon=True).start()

    def settle(self) -> None:
        """The final picture, if all runs have ended."""
        with self._lock:
            if self._card is not None and not self.finished and all(run.ended for run in self._runs):
                self.finished = True
                self._card.finish(*self._now())

    def _follow(self) -> None:
        tick = threading.Event()
        while not self.finished and not tick.wait(PERIOD):
            self.refresh()
            self.settle()

    def _now(self) -> tuple[list[dict[str, Any]], dict[str, Sequence[dict[str, Any]]]]:
        return [run.card() for run in self._runs], {run.id: self._rows_of(run) for run in self._runs}

    def _rows_of(self, run: TrainingRun) -> Sequence[dict[str, Any]]:
        rows = self._rows.get(run.id)
        if rows is None:
            complete = run.complete
            rows = [row_json(attempt, row) for attempt, row in run.rows()]
            if complete:
                self._rows[run.id] = rows
        return rows

    def _act(self, run_id: str, action: str) -> None:
        """A button of the widget, where no server is reachable."""
        run = next((run for run in self._runs if run.id == run_id), None)
        if run is None:
            return
        try:
            (run.stop if action == "stop" else run.cancel)()
        except KafkaJupyterError as error:
            self.note(str(error))
