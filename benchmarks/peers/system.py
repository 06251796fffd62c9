"""What is asked of every system, and what its answer says."""

from __future__ import annotations

import abc
import dataclasses
import threading
import time
from typing import Any

Model = Any
WITHIN_S = 120.0


@dataclasses.dataclass
class Times:
    """Of one training, in seconds from the call. `lags`: from the end of an epoch there until it was seen here."""

    returned: float = 0.0  # the call gave the program back
    first: float = 0.0  # the first epoch was seen in this process
    done: float = 0.0  # the weights were in the caller's model
    lags: list[float] = dataclasses.field(default_factory=list)


class Clock:
    """Notes what is seen of one training, on whichever thread it comes."""

    def __init__(self, epochs: int) -> None:
        self.times = Times()
        self._epochs, self._all = epochs, threading.Event()
        self._began = time.perf_counter()

    def seen(self, at: float) -> None:
        """An epoch that had ended there at this time (of time.time())."""
        self.times.lags.append(time.time() - at)
        self.times.first = self.times.first or time.perf_counter() - self._began
        if len(self.times.lags) >= self._epochs:
            self._all.set()

    def returned(self) -> None:
        self.times.returned = time.perf_counter() - self._began

    def done(self) -> Times:
        self.times.done = time.perf_counter() - self._began
        if not self._all.wait(WITHIN_S):
            raise TimeoutError(f"{len(self.times.lags)} of {self._epochs} epochs were seen")
        return self.times


class System(abc.ABC):
    name: str
    keeps: str  # what of a run is left when its processes die, in a few words

    @abc.abstractmethod
    def train(self, model: Model, data: tuple[Any, Any], epochs: int, batch_size: int) -> Times:
        """Trains there, and puts the weights into `model`."""

    @abc.abstractmethod
    def many(self, count: int) -> float:
        """Seconds for so many trainings of one epoch (remote.tiny), submitted at once, on two workers."""

    def start(self) -> float | None:
        """Seconds from the call until a task of nothing has begun on an idle worker; None where there is no worker."""
        return None

    def rest(self) -> None:  # noqa: B027  # most have nothing to do
        """Until it is idle."""

    def close(self) -> None:  # noqa: B027  # as above
        """Ends its processes."""
