"""The trainings of `ahead` as a picture: bars of each system against `fit` in the kernel."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.peers.system import Times

OURS, OTHERS = "#1976d2", "#b0bec5"
PANELS = {"first": "first epoch seen", "done": "done, weights back"}


def trainings(file: pathlib.Path, found: Mapping[str, Mapping[str, Sequence[Times]]], base: str, ours: str) -> None:
    """`found`: training → system → rounds. A bar is a median by that of `base`, a line from the fastest round to the slowest."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "kafka_jupyter"  # the same figures give the same file
    from matplotlib import pyplot

    names = [name for name in next(iter(found.values())) if name != base]
    figure, panels = pyplot.subplots(len(PANELS), len(found), figsize=(4 * len(found), 2 * len(PANELS)), sharex=True, sharey=True)
    for row, (field, label) in zip(panels, PANELS.items(), strict=True):
        for panel, (what, systems) in zip(row, found.items(), strict=True):
            unit = statistics.median(getattr(t, field) for t in systems[base])
            times = [[getattr(t, field) / unit for t in systems[name]] for name in names]
            panel.barh(names, [statistics.median(each) for each in times], color=[OURS if name == ours else OTHERS for name in names])
            panel.hlines(names, [min(each) for each in times], [max(each) for each in times], color="#37474f", linewidth=1)
            panel.axvline(1, color="#d32f2f", linewidth=1)
            panel.set_title(f"{what}: {label}", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.invert_yaxis() if panel is panels[0][0] else None
    figure.supxlabel("time against `fit` in the kernel (1 = the same; shorter is better)", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
