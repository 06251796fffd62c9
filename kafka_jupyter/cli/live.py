"""A picture that moves on a terminal, at most four times a second, and stays when it ends."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.control import Control
from rich.live import Live

from kafka_jupyter.cli import facts
from kafka_jupyter.cli.picture import picture
from kafka_jupyter.client.handle import LAST_ROWS_S
from kafka_jupyter.errors import WaitTimeout

if TYPE_CHECKING:
    from kafka_jupyter.client import Client, TrainingRun

PERIOD_S = 0.25  # between two looks
CLOCK_S = 1.0  # between two pictures where nothing has changed but the time
SHARE = 0.1  # of the time goes into looking at most, however long a history is

Draw = Callable[[int, int], RenderableType]  # width and height → what is shown


class Screen:
    """Draws where the cursor stands; what was there before is left alone, and the cursor comes back however it ends."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live = self._begun()
        self._shown: tuple[Any, ConsoleDimensions] | None = None
        self._at = 0.0
        self._asleep = False
        self._signals = {signal.SIGTERM: _leave, signal.SIGTSTP: self._rest}

    def __enter__(self) -> Screen:
        self._before = {number: signal.signal(number, handler) for number, handler in self._signals.items()}
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def draw(self, what: Any, draw: Draw) -> None:
        """Draws anew if `what` (any value that tells one state of things from another) or the terminal's size has changed, or the clock."""
        if self._asleep:
            self._sleep()
        width, height = size = self._console.size
        if self._shown == (what, size) and time.monotonic() - self._at < CLOCK_S:
            return
        if self._shown is not None and width < self._shown[1].width:
            # The terminal has broken the longer lines: nobody knows how many there are now, so that none of them can be taken back.
            self._console.control(Control.clear(), Control.home())
        self._live.update(draw(width, height), refresh=True)
        self._shown, self._at = (what, size), time.monotonic()

    def _begun(self) -> Live:
        return Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def _rest(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z. Not here: it may come in the middle of a picture."""
        self._asleep = True

    def _sleep(self) -> None:
        """The picture stays as it is, and the shell gets its cursor. Afterwards a new one begins below what was written meanwhile."""
        self._live.stop()
        self._asleep = False
        os.kill(os.getpid(), signal.SIGSTOP)
        self._shown, self._live = None, self._begun()
        self._live.start()


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def follow(client: Client, run: TrainingRun, timeout_s: float | None) -> None:
    """Until the run has ended and its last row is here. Raises WaitTimeout, and what has ended the reading of the log."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ended_at: float | None = None
    with Screen() as screen:
        while True:
            started = time.monotonic()
            client.connection().follower()  # raises where nobody reads any more
            over = run.complete  # asked before the rows are read: more may come in between
            card, rows = run.card(), run.rows()
            state = {name: value for name, value in card.items() if name != "now_ms"}
            screen.draw((state, len(rows), rows[-1:]), functools.partial(_picture, card, rows))
            if run.ended and ended_at is None:
                ended_at = started
            if over or (ended_at is not None and started - ended_at > LAST_ROWS_S):
                return
            if deadline is not None and started >= deadline:
                raise WaitTimeout(run_id=run.id, seconds=timeout_s, progress=run.progress)
            time.sleep(max(PERIOD_S, (time.monotonic() - started) / SHARE))


def _picture(card: dict[str, Any], rows: facts.Rows, width: int, height: int) -> RenderableType:
    return picture(card, rows, time.time() * 1000, width, height)


def watch(show: Callable[[], RenderableType]) -> None:
    """What `show` gives, once a second, until somebody ends it."""
    with Screen() as screen:
        while True:
            screen.draw(object(), functools.partial(_same, show()))
            time.sleep(CLOCK_S)


def _same(shown: RenderableType, _width: int, _height: int) -> RenderableType:
    return shown
