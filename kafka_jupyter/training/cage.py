"""What a child may not do, whatever its code says. Each part is tried, and what holds is told: not every platform can forbid everything.

It is entered right behind the fork, while there is one thread and nothing has been read yet. Of Linux only, but for the limits.
docs/security.md says what it does not stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import resource
import sys
from collections.abc import Iterator, Sequence

HELD = "KAFKA_JUPYTER_CAGE"  # the variable in which a child finds what holds
PARTS = ("network", "secrets", "privileges", "memory", "files", "processes", "core")
_NEW_NAMESPACES = {"user": 0x1000_0000, "mount": 0x0002_0000, "ipc": 0x0800_0000, "network": 0x4000_0000}  # CLONE_NEW…, as sched.h has them
_NO_NEW_PRIVILEGES = 38  # prctl.h
_PRIVATE, _RECURSIVE, _READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC, _BIND = 1 << 18, 1 << 14, 1, 2, 4, 8, 1 << 12  # mount.h


@dataclasses.dataclass(frozen=True)
class Cage:
    """`memory`: bytes of writable memory. `hidden`: folders and files that are empty in there. `network`: it may use it."""

    memory: int = 0  # 0: not limited
    files: int = 4096  # open at a time
    processes: int = 4096  # threads included
    hidden: Sequence[str] = ()
    network: bool = False


def enter(cage: Cage) -> list[str]:
    """Confines this process and all that it starts. What holds, of PARTS."""
    held = list(_namespaces(cage)) if sys.platform == "linux" else []
    if sys.platform == "linux" and _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        held.append("privileges")  # no set-user-ID program gives it more
    held += _limits(cage, own_processes="secrets" in held)
    os.environ[HELD] = ",".join(held)
    return held


def held() -> list[str]:
    """What holds in this process."""
    return [part for part in os.environ.get(HELD, "").split(",") if part]


def _namespaces(cage: Cage) -> Iterator[str]:
    user, group = os.getuid(), os.getgid()
    wanted = _NEW_NAMESPACES["user"] | _NEW_NAMESPACES["mount"] | _NEW_NAMESPACES["ipc"]
    network = 0 if cage.network else _NEW_NAMESPACES["network"]
    if _call("unshare", wanted | network):
        _map_ids(user, group)
    elif not (network and _call("unshare", network)):  # where a user may have no namespace of their own, root still may
        return
    else:
        wanted = 0
    if network:
        yield "network"
    if wanted and _hide(cage.hidden):
        yield "secrets"


def _map_ids(user: int, group: int) -> None:
    """Who it is in its own namespace: the same, and nobody else."""
    for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError):
            pathlib.Path(f"/proc/self/{file}").write_text(text)


def _hide(paths: Sequence[str]) -> bool:
    """An empty folder over each folder, /dev/null over each file."""
    if not _call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None):
        return False
    hidden = True
    for path in paths:
        if os.path.isdir(path):
            flags = _READ_ONLY | _NO_SUID | _NO_DEV | _NO_EXEC
            hidden &= _call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", flags, b"size=4k,mode=500")
        elif os.path.exists(path):
            hidden &= _call("mount", b"/dev/null", os.fsencode(path), None, _BIND, None)
    return hidden


def _limits(cage: Cage, own_processes: bool) -> Iterator[str]:
    """`own_processes`: those of a namespace are counted for themselves; else the user's other ones would count too."""
    wanted = [("core", resource.RLIMIT_CORE, 0), ("files", resource.RLIMIT_NOFILE, cage.files)]
    if cage.memory:
        wanted.append(("memory", resource.RLIMIT_DATA, cage.memory))
    if own_processes:
        wanted.append(("processes", resource.RLIMIT_NPROC, cage.processes))
    for name, kind, limit in wanted:
        _, hard = resource.getrlimit(kind)
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (least, least))
            yield name


def _call(name: str, *arguments: object) -> bool:
    """A function of the C library; whether it did what was asked."""
    try:
        return bool(getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == 0)
    except (AttributeError, OSError, ctypes.ArgumentError):
        return False
