"""The forkserver as its supervisor holds it: started, heard, buried. All calls come from the thread of `Children`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from kafka_jupyter.training.cage import Cage
from kafka_jupyter.worker.lines import Lines

_READ = 1 << 16
_LAST_WORDS = 30  # lines of its stderr that are kept to explain its death
_CLOSE_GRACE_S = 5.0

_BOOT = (
    "import json, sys; arguments = json.loads(sys.argv[1]); sys.path[:] = arguments['path']; "
    "from kafka_jupyter.worker import forkserver; forkserver.main(arguments['control'], arguments['entries'], arguments['cage'])"
)


class ForkserverProcess:
    """The process and what it says. Its answers are read by the thread of Children."""

    def __init__(self, environ: Mapping[str, str], entries: Mapping[str, str], cage: Cage) -> None:
        """Raises OSError where no process can be started."""
        self.control, theirs = socket.socketpair()
        arguments = {"path": sys.path, "control": theirs.fileno(), "entries": entries, "cage": dataclasses.asdict(cage)}
        try:
            self.process = subprocess.Popen(
                # -P: the folder that the supervisor happens to stand in must not shadow a module
                [sys.executable, "-P", "-c", _BOOT, json.dumps(arguments)],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which ends its children in order
            )
        except OSError:
            self.control.close()
            raise
        finally:
            theirs.close()
        assert self.process.stderr is not None
        self.stderr = self.process.stderr
        os.set_blocking(self.stderr.fileno(), False)
        self.was_ready = False
        self.unfit = ""  # why it can fork nothing
        self._buffer = b""
        self._lines = Lines()
        self._last_words: collections.deque[str] = collections.deque(maxlen=_LAST_WORDS)

    def hear(self) -> list[dict[str, Any]] | None:
        """What it said; None at its end."""
        try:
            data = self.control.recv(_READ)
        except OSError:
            data = b""
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for event in events:
            if event["event"] == "ready":
                self.was_ready, self.unfit = True, event["unfit"]
        return events

    def hear_last_words(self) -> bool:
        try:
            data = os.read(self.stderr.fileno(), _READ)
        except BlockingIOError:
            return True
        self._last_words.extend(self._lines.feed(data))
        return bool(data)

    def say_goodbye(self) -> None:
        """It ends its children at end of file; while it still imports Keras it has none, and would be slow to notice."""
        if self.was_ready:
            with contextlib.suppress(OSError):
                self.control.shutdown(socket.SHUT_WR)
        else:
            self.process.kill()

    def bury(self) -> str:
        """Reaps it and says how it died."""
        self.control.close()
        try:
            code = self.process.wait(_CLOSE_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.hear_last_words()
        self.stderr.close()
        said = "\n".join([*self._last_words, *self._lines.end()])
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        when = "died" if self.was_ready else "died while it imported Keras"
        return f"the process that children are forked from {when} ({how}). {said}".strip()
