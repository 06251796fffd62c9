"""Host: where a captured `fit` stands and what a person sees of it. A notebook registers itself; else there are lines of text.

`%load_ext` imports this module, so it stays light.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from kafka_jupyter.capture.options import Place
from kafka_jupyter.capture.view import Lines, View

EXTENSION = "kafka_jupyter"


class Host(Protocol):
    def place(self) -> Place:
        """Of what runs now."""

    def view(self, place: Place, waiting: bool) -> View:
        """`waiting`: a `fit` returns when its run has ended."""


class Script:
    def place(self) -> Place:
        return Place(key="")

    def view(self, _place: Place, _waiting: bool) -> View:
        return Lines()


_host: Host | None = None


def use(host: Host) -> None:
    """Whose captured `fit`s come from now on."""
    global _host
    _host = host


def current() -> Host:
    """In a kernel that has not loaded the extension it is loaded now: the card is expected, and lines name its magics."""
    shell = _kernel_shell() if _host is None else None
    if shell is not None:
        shell.extension_manager.load_extension(EXTENSION)
    return _host or Script()


def _kernel_shell() -> Any:
    """IPython's, if this is a kernel; IPython is not imported for that."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell: Any = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None
