"""`task_dlq`: tasks that nobody will train any more, with the reason."""

from __future__ import annotations

import msgspec

from kafka_jupyter.protocol.control import TaskPlace
from kafka_jupyter.protocol.ids import version_1

TYPE = "dead_letter"


class DeadLetter(msgspec.Struct, frozen=True, tag_field="type", tag=TYPE, omit_defaults=True):
    """`task` is the Task's JSON as it stood in the log (text, because it may be no JSON at all); empty where it was unreadable."""

    run_id: str
    why: str
    v: int = msgspec.field(default_factory=version_1)
    place: TaskPlace | None = None
    task: str = ""
    error: str = ""
    traceback: str = ""
    attempts: int = 0
    versions: dict[str, str] = {}
    by: str = ""
