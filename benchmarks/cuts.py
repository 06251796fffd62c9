"""A stream that is cut ten thousand times, as the page itself would follow it."""

from __future__ import annotations

from benchmarks.bench import FOLDER, Bench, environment, say
from benchmarks.report import Chapter, Figure
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from tests.support.cuts import HURRY, cut
from tests.support.jupyter_server import jupyter_server

HOW = """The page's own StreamHub and History, run by node, read from a real Jupyter server through a proxy that cuts the connection: after
one to 30,000 bytes by chance (one in twenty within the head of the answer), or when nothing comes; half of the cuts are resets. All the
while runs write into the log: restarts, zombies, losers, copies, late Starteds, junk. Then the rows that have come, each as often as it
came, are compared with those in the log, and the finished epochs of each run with what the server answers to who asks for the whole run."""

SEED = 20


def measure(bench: Bench) -> Chapter:
    settings, folder = bench.kafka.replace(topic_prefix="cuts."), FOLDER / "cuts"
    log = Log.open(Cluster(settings), create=True)
    say(f"cutting a stream {bench.scale.cuts} times")
    try:
        with jupyter_server(folder, environment(settings), *HURRY) as server:
            told = cut(server, log, folder, bench.scale.cuts, SEED)
    finally:
        log.close()
    rows = f"{told['missing']} missing, {told['double']} double of {told['rows']:,} rows of {told['runs']} runs"
    after = f"after {told['cuts']:,} cuts ({told['resumes']:,} resumes, {told['resets']} resets)"
    histories = f"{told['otherHistories']} of {told['runs']} differ"
    return Chapter(
        "Cuts of the stream",
        HOW,
        [
            Figure(f"{bench.scale.cuts:,} forced cuts", f"{rows} {after}", "0 missing, 0 double", not (told["missing"] or told["double"])),
            Figure("histories of the page", histories, "0", not told["otherHistories"]),
        ],
    )
