"""`python -m tests.faults.worker worker …`: the real worker, with other hands at its two edges.

Its children run `poisoned`, and with FAULTS_IN_STORE set, the file system below its store is the one of `faulty_files`.
"""

from __future__ import annotations

import functools
import os

from kafka_jupyter.cli import main
from kafka_jupyter.worker import supervisor
from kafka_jupyter.worker.children import Children
from tests.faults import faulty_files

if __name__ == "__main__":
    supervisor.Children = functools.partial(Children, train="tests.faults.poisoned:main")  # type: ignore[misc,assignment]
    if "FAULTS_IN_STORE" in os.environ:
        faulty_files.install(float(os.environ["FAULTS_IN_STORE"]), os.environ["FAULTS_LOG"])
    main()
