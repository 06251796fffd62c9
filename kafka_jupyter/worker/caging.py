"""How a worker confines its children, by its settings; and how it keeps what it knows itself from them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import sys

import platformdirs
import psutil

from kafka_jupyter.settings import APP, PREFIX, Settings
from kafka_jupyter.training.cage import Cage

ROOM = 8 << 30  # bytes beyond what the machine has: memory that is asked for is not all written to
# Where people and their tools keep what opens doors, below the home folder.
_SECRETS = (
    ".aws", ".azure", ".config/gcloud", ".docker", ".gnupg", ".kube", ".netrc", ".npmrc", ".pypirc", ".ssh", ".cache/huggingface/token",
    ".git-credentials", ".jupyter", ".local/share/jupyter/runtime", ".pgpass", ".my.cnf",
)  # fmt: skip
_NOT_DUMPABLE = 4  # PR_SET_DUMPABLE


def cage_of(settings: Settings) -> Cage:
    config = os.environ.get(PREFIX + "CONFIG")
    ours = [settings.key_dir, platformdirs.user_config_path(APP), *([pathlib.Path(config)] if config and config != os.devnull else [])]
    theirs = [pathlib.Path.home() / name for name in _SECRETS]
    hidden = [str(path.absolute()) for path in (*ours, *theirs) if path.exists()]
    memory = settings.child_memory or psutil.virtual_memory().total + ROOM
    return Cage(memory, hidden=hidden, network=settings.allow_network)


def guard_ourselves() -> None:
    """What this process has in its environment and memory, no other of the same user may read from /proc, its children included."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_NOT_DUMPABLE, 0, 0, 0, 0)
