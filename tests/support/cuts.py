"""The page's own stream (labextension/src), run by node against a real Jupyter server, over a connection that is cut at random bytes."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

from kafka_jupyter.brokers.log import Log
from tests.server.storm import Storm, truth
from tests.support.jupyter_server import TOKEN, JupyterServer

FRONT = pathlib.Path(__file__).parents[2] / "labextension"
HURRY = ("--KafkaJupyterApp.retry_ms=1", "--KafkaJupyterApp.heartbeat_s=0.05")  # for a server whose page shall not wait between cuts


def cut(server: JupyterServer, log: Log, folder: pathlib.Path, cuts: int, seed: int) -> dict[str, int]:
    """What labextension/tests/cuts.ts has counted; a storm has written all the while. The topics should be those of this call alone."""
    task = json.dumps({"port": server.port, "root": "/", "token": TOKEN, "cuts": cuts, "seed": seed})
    node = subprocess.Popen(["node", str(_bundled(folder)), task], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert node.stdin is not None
    assert node.stdout is not None
    try:
        made, storm = _line(node), Storm(log, seed)
        while made["cuts"] < cuts:
            storm.burst()
            made = _line(node)
        storm.end()
        epochs = {run.run_id: _epochs(server, run.run_id) for run in storm.all}
        node.stdin.write(json.dumps({"rows": sorted(truth(log)), "epochs": epochs}) + "\n")
        node.stdin.flush()
        return _line(node)
    finally:
        node.kill()
        node.wait()
        node.stdin.close()
        node.stdout.close()


def _bundled(folder: pathlib.Path) -> pathlib.Path:
    to = folder / "cuts.mjs"
    how = ["--bundle", "--platform=node", "--format=esm", "--log-level=warning", f"--outfile={to}"]
    subprocess.run([str(FRONT / "node_modules" / ".bin" / "esbuild"), str(FRONT / "tests" / "cuts.ts"), *how], check=True)
    return to


def _line(node: subprocess.Popen[str]) -> dict[str, int]:
    assert node.stdout is not None
    line = node.stdout.readline()
    assert line, f"node ended with {node.wait()}"
    told: dict[str, int] = json.loads(line)
    return told


def _epochs(server: JupyterServer, run_id: str) -> list[list[Any]]:
    """(attempt, seq) of the finished epochs that count, as the server says it to who asks for the whole run."""
    status, answer = server.get(f"runs/{run_id}")
    assert status == 200, answer
    return [[row["attempt"], row["seq"]] for row in answer["rows"] if row["type"] == "epoch"]
