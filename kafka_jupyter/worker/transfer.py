"""The slow half of an attempt, on the pool's threads: Task and artifacts in, results out."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from kafka_jupyter import errors
from kafka_jupyter.brokers.log import SignedTask
from kafka_jupyter.protocol import codec, control, frames, topics
from kafka_jupyter.protocol.parts import InlineBytes, InlineText, KafkaRef, Part, Ref, UrlRef
from kafka_jupyter.protocol.task import MODULE, MODULES_LIMIT, ResumePoint, Task
from kafka_jupyter.store import Lease, Progress, Store
from kafka_jupyter.store.source import Chunks
from kafka_jupyter.worker.site import Site

# Bytes; a result up to this size stands in Succeeded itself, which every reader of run_control reads, as long as all that stands
# there does not become more than the second figure. A callback may write a thousand files.
RESULT_INLINE = 8 << 10
RESULTS_INLINE = 64 << 10
PUTS = 3  # of what does not come back as it was sent
_READ = 1 << 20


@dataclasses.dataclass
class Prepared:
    """A task ready to be trained: `inputs` maps part names to local files, which `lease` keeps. `point` is where it goes on, by this
    `checkpoint` of its own run (None: by that of the run before), `files` are those of its callbacks; `notes` say which newer checkpoints
    could not be read."""

    task: Task
    task_json: bytes
    inputs: dict[str, str]
    folder: pathlib.Path
    log_offset: int
    lease: Lease
    point: ResumePoint | None
    checkpoint: control.Checkpointed | None
    files: dict[str, str]
    notes: list[str]

    @property
    def place(self) -> tuple[int, int]:
        """(epoch, step) where the training begins."""
        return (self.point.epoch, self.point.step) if self.point else (self.task.fit.initial_epoch, 0)

    def started(self, own: dict[str, Any], ready: frames.Ready, host: str, pid: int) -> control.Started:
        """What a child says that has built its model of it."""
        return control.Started(
            **own,
            epoch=ready.epoch,
            step=ready.step,
            checkpoint=self.point.state if self.point else None,
            log_offset=self.log_offset,
            device=ready.device,
            host=host,
            pid=pid,
            versions=ready.versions,
        )

    def discard(self) -> None:
        self.lease.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def prepare(
    site: Site,
    place: control.TaskPlace,
    run_id: str,
    folder: pathlib.Path,
    known: SignedTask | None = None,
    checkpoints: Sequence[control.Checkpointed] = (),
    progress: Progress | None = None,
) -> Prepared:
    """Reads the Task (unless it is `known`), checks its model against the allow-list, brings every part to a local file, and the first
    of `checkpoints` that can be read (else that of the task, for a run that was retried).

    Raises RecordError (the task cannot be read), CaptureError (it holds what is not allowed), StoreError, BrokerError.
    """
    signed = known if known is not None and known.task.run_id == run_id else site.log.read_signed_task(place, run_id)
    task = signed.task
    if task.trusted_code or task.code is not None:
        _check_code(site, signed)
    if task.trainer != "keras":
        raise errors.NewerRecord(
            topic=place.topic, partition=place.partition, offset=place.offset, type=f"trainer {task.trainer}", version=1
        )
    log_place = site.log.topics.place(topics.TRAINING_LOG, run_id)
    log_offset = site.asking.bounds(log_place)[1]
    (folder / "inputs").mkdir(parents=True)
    lease = site.store.lease()
    try:
        from kafka_jupyter.models import allowlist  # pure JSON, but the room imports Keras elsewhere

        inputs = {name: str(_local(lease, part, name, folder / "inputs", progress)) for name, part in task.parts().items()}
        config = pathlib.Path(inputs["model"]).read_bytes()
        allowlist.check_globals(config) if task.code is not None and task.code.model else allowlist.check(config)
        point, files, notes = _brought(lease, _points(checkpoints, task), inputs, folder / "inputs", progress)
    except BaseException:
        lease.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    checkpoint = next((c for c in checkpoints if point is not None and c.parts.get("state") == point.state), None)
    return Prepared(task, codec.encode(task), inputs, folder, log_offset, lease, point, checkpoint, files, notes)


def _check_code(site: Site, signed: SignedTask) -> None:
    """Raises NeedsTrust unless this worker runs code, and the key that signed the task may bring it."""
    if not site.settings.allow_code:
        raise errors.NeedsTrust(detail="This worker was not started with --allow-code.")
    if not signed.origin.code:
        key = f"The key {signed.origin.kid} that signed it" if signed.origin.proved else "Nobody who is known here has signed it; its key"
        raise errors.NeedsTrust(detail=f"{key} has no role `code`: `kafka-jupyter keys trust FILE --role code`.")
    files = signed.task.code.files if signed.task.code is not None else {}
    bad = next((path for path in files if not MODULE.match(path)), None)
    if bad is not None or len(files) > MODULES_LIMIT:
        what = f"the module {bad[:80]!r}" if bad is not None else f"{len(files)} modules"
        raise errors.CannotTravel(what=what, where="the task", why="no worker puts such a file anywhere", way_out="Submit it again.")


def _points(checkpoints: Sequence[control.Checkpointed], task: Task) -> list[ResumePoint]:
    own = [ResumePoint(c.epoch, c.step, c.parts["state"], c.files) for c in checkpoints if "state" in c.parts]
    return own + ([task.resume] if task.resume else [])


def _brought(
    lease: Lease, points: Iterable[ResumePoint], inputs: dict[str, str], folder: pathlib.Path, progress: Progress | None
) -> tuple[ResumePoint | None, dict[str, str], list[str]]:
    """The first that is whole, its files by place, and why those before it were passed over (rule 8). Its state becomes an input."""
    notes = []
    for point in points:
        where = f"epoch {point.epoch}, step {point.step}"
        try:
            state = str(_local(lease, point.state, "checkpoint", folder, progress))
            files = {place: str(_local(lease, part, f"file-{i}", folder, progress)) for i, (place, part) in enumerate(point.files.items())}
        except (errors.ArtifactMissing, errors.ArtifactTruncated, errors.ArtifactAltered) as failure:
            notes.append(f"The checkpoint of {where} could not be read, an older one is taken: {failure}")
            continue
        inputs["checkpoint"] = state
        return point, files, notes
    return None, {}, notes


def _local(lease: Lease, part: Part, name: str, folder: pathlib.Path, progress: Progress | None) -> pathlib.Path:
    if not isinstance(part, InlineText | InlineBytes):
        return lease.fetch(part, name, progress)
    file = folder / name.replace("/", "-")
    file.write_bytes(part.text.encode() if isinstance(part, InlineText) else part.data)
    return file


def owner_of(run_id: str, n: int) -> str:
    """Whose uploads those of attempt n are."""
    return f"{run_id}/{n}"


@dataclasses.dataclass(frozen=True)
class Results:
    parts: dict[str, Part]
    files: list[control.OutputFile]


class Kept:
    """What of an attempt's files is in the store, by local file. For one `keep` at a time."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}  # whole, as was found by reading them back
        self.unread: dict[str, Ref] = {}  # not read back yet

    def take(self, file: str) -> list[Ref]:
        """Forgets this one; what of it is in the store."""
        found = (self.parts.pop(file, None), self.unread.pop(file, None))
        return [part for part in found if isinstance(part, KafkaRef | UrlRef)]


def keep(
    store: Store,
    name: str,
    owner: str,
    files: dict[str, str],
    outputs: dict[str, str],
    kept: Kept,
    progress: Progress | None = None,
) -> Results:
    """Stores what a child left, for its attempt (see `owner_of`), and reads it back and hashes it (rule 8) before anybody is told of it.

    `kept` is what an earlier try has stored; what this one stores is added.
    """
    room = RESULTS_INLINE - sum(part.size for part in kept.parts.values() if isinstance(part, InlineBytes))
    for label, file in (*files.items(), *sorted(outputs.items())):
        if file not in kept.parts:
            kept.parts[file] = part = _stored(store, f"{name}/{label}", owner, file, min(RESULT_INLINE, room), kept.unread, progress)
            room -= part.size if isinstance(part, InlineBytes) else 0
    return Results(
        {part: kept.parts[file] for part, file in files.items()},
        [control.OutputFile(path, kept.parts[file]) for path, file in sorted(outputs.items())],
    )


def _stored(store: Store, name: str, owner: str, file: str, inline: int, unread: dict[str, Ref], progress: Progress | None) -> Part:
    """What is `unread` is not sent again: that it could not be read back may pass."""
    path = pathlib.Path(file)
    size = path.stat().st_size
    if size <= inline:
        return InlineBytes(path.read_bytes())
    for tries_left in reversed(range(PUTS)):
        if file not in unread:
            unread[file] = store.put(name, size, _chunks(path), progress=progress, limited=False, owner=owner)
        ref = unread[file]
        try:
            store.verify(ref, name, progress)
        except (errors.ArtifactAltered, errors.ArtifactTruncated, errors.ArtifactMissing):  # what was trained lies here and is whole
            del unread[file]
            with contextlib.suppress(errors.StoreError, errors.BrokerError):
                store.rm(ref)
            if not tries_left:
                raise
        else:
            break
    return unread.pop(file)


def _chunks(file: pathlib.Path) -> Chunks:
    with file.open("rb") as stream:
        while chunk := stream.read(_READ):
            yield chunk
