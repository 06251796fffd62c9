"""Who may do what on a Jupyter server, for tests: loaded by the server's process."""

from __future__ import annotations

import pathlib
from typing import Any

from jupyter_server.auth import Authorizer

DENIED = "nobody-sees-runs"  # a file in the server's folder: while it is there, nobody does


class RunsOnDemand(Authorizer):
    """Everything is allowed but, while there is a file of that name, what kafka_jupyter serves."""

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        return resource != "kafka_jupyter" or not pathlib.Path(DENIED).exists()
