"""A child under test: what it said, and waiting for it with a message and a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kafka_jupyter.worker.children import Child, Children, Exit


class Watched:
    """Starts a child and keeps frames, lines and its end in the order in which they were told."""

    def __init__(self, children: Children) -> None:
        self.frames: list[Any] = []
        self.lines: list[tuple[str, str]] = []
        self.exits: list[Exit] = []
        self.after_exit = 0
        self._changed = threading.Condition()
        self.child: Child = children.start(
            lambda frame: self._add(self.frames, frame),
            lambda text, stream: self._add(self.lines, (text, stream)),
            lambda exit: self._add(self.exits, exit),
        )

    def _add(self, where: list[Any], what: Any) -> None:
        with self._changed:
            self.after_exit += bool(self.exits)
            where.append(what)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any], message: str, within: float = 30.0) -> Any:
        with self._changed:
            found = self._changed.wait_for(condition, within)
        assert found, f"{message} within {within} s; frames {self.frames[-3:]}, lines {self.lines[-20:]}, exits {self.exits}"
        return found

    def exit(self, within: float = 30.0) -> Exit:
        self.wait(lambda: self.exits, "the child did not end", within)
        return self.exits[0]

    def frame(self, kind: type, within: float = 30.0) -> Any:
        """The first frame of a kind."""
        return self.wait(lambda: next((f for f in self.frames if isinstance(f, kind)), None), f"no {kind.__name__} came", within)

    def told(self, name: str, within: float = 30.0) -> Any:
        """A value that an entry of children_entries.py told."""
        found = self.wait(lambda: [f for f in self.frames if name in getattr(f, "fields", {})], f"it did not tell its {name}", within)
        return found[0].fields[name]
