"""Which tests stay together in one process of pytest-xdist: those of a file, for what they share; those of a room that shares even more.

By the path and not by the marker `xdist_group`: pytest 9.2 ignores in silence what pytest-xdist 3.8 makes of that, and every fixture of a
module is then set up in each process.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("browser", "faults")  # share the servers, and the three brokers
PLAYED = ("test_hostile.py", "test_pages.py", "test_panel_many.py", "test_panel_states.py")  # of the browser's, those without a worker
APART = ("test_fold_exhaustive.py", "test_fold_histories.py")  # share nothing and compute for minutes


class ByFile(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        room, name = file.split("/")[-2:]
        if room in TOGETHER:
            return f"{room}, played" if name in PLAYED else room
        return nodeid if name in APART else file
