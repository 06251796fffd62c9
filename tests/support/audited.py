"""`python -m tests.support.audited worker …`: a worker whose own process writes down what it must not do, in the file that AUDIT names.

Its children are not watched: they are other programs. At the end it does all of it once, to show that it was watched until then.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import sys
from typing import Any

from kafka_jupyter.cli import app

FOREIGN = ("keras", "tensorflow", "jax", "torch", "cloudpickle", "h5py")
THE_END = ["the end", "pickle.find_class posix getpid", "import cloudpickle"]


class Watch:
    """Of this process alone: a fork of it would inherit the hook."""

    def __init__(self, file: pathlib.Path) -> None:
        self._file, self._pid = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), os.getpid()

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "pickle.find_class":
            self.note(f"{event} {args[0]} {args[1]}")
        elif event == "import" and str(args[0]).partition(".")[0] in FOREIGN:
            self.note(f"{event} {args[0]}")

    def note(self, text: str) -> None:
        if os.getpid() == self._pid:
            os.write(self._file, f"{text}\n".encode())


def main() -> None:
    watch = Watch(pathlib.Path(os.environ["AUDIT"]))
    sys.addaudithook(watch.hook)
    try:
        app.run()
    finally:
        for name in sorted(set(FOREIGN) & set(sys.modules)):
            watch.note(f"loaded {name}")
        watch.note("the end")
        pickle.loads(b"cposix\ngetpid\n.")
        import cloudpickle  # noqa: F401  # noticed, or nothing else would have been


if __name__ == "__main__":
    main()
