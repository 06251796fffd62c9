"""A folder that is there or not, from one moment to the next."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable


class Removable:
    """While it is away there is a file in its place, so that nobody makes the folder anew."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._real = path.with_name(f"{path.name}-real")
        self._real.mkdir()
        path.symlink_to(self._real)

    def take_away(self) -> None:
        self._put(lambda file: file.write_text("no folder"))

    def bring_back(self) -> None:
        self._put(lambda link: link.symlink_to(self._real))

    def _put(self, make: Callable[[pathlib.Path], object]) -> None:
        """In one step: between two, somebody who looks would find nothing at all."""
        other = self.path.with_name(f"{self.path.name}-other")
        make(other)
        os.replace(other, self.path)
