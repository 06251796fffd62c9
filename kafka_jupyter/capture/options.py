"""How a cell or block is to be trained: the options of `%%kafka_train` and of `train()`."""

from __future__ import annotations

import dataclasses

from kafka_jupyter.errors import SettingsError
from kafka_jupyter.settings import Settings

INTERRUPTS = ("detach", "stop", "cancel")
TRUSTS = ("data", "code")
HEADLESS_QUEUE_TIMEOUT_S = 300.0  # without any matching worker, where nobody is there to look


@dataclasses.dataclass(frozen=True)
class Options:
    """`on_interrupt` and `queue_timeout` (seconds): None means what the settings say."""

    name: str = ""
    background: bool = False
    attach: bool = False
    on_interrupt: str | None = None
    queue_timeout: float | None = None
    profile: str | None = None
    trust: str | None = None  # data or code; None: what the settings say
    include: tuple[str, ...] = ()  # modules beside the notebook that are sent along
    check: bool = True
    dry_run: bool = False

    def settings(self) -> Settings:
        """Raises SettingsError."""
        if self.trust not in (None, *TRUSTS):
            raise SettingsError(name=f"trust={self.trust!r}", why="must be data or code", source="an argument")
        if self.queue_timeout is not None and not self.queue_timeout > 0:
            name = f"queue_timeout={self.queue_timeout!r}"
            raise SettingsError(name=name, why="must be a number of seconds above 0", source="an argument")
        found = Settings.from_env(profile=self.profile)
        return found if self.on_interrupt is None else found.replace(on_interrupt=self.on_interrupt)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the `fit` stands. `headless`: nobody is there to look, or to interrupt."""

    key: str  # the same when the cell is run again
    notebook: str = ""
    cell: str = ""
    source: str = ""
    headless: bool = True
