"""Session: one cell or `with` block in which every `fit` is captured, sent and (unless in the background) waited for."""

from __future__ import annotations

import dataclasses
import pathlib
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from kafka_jupyter import errors
from kafka_jupyter.brokers import daemons, local, local_daemons
from kafka_jupyter.capture import check, patch, send
from kafka_jupyter.capture.options import Options, Place
from kafka_jupyter.capture.view import View
from kafka_jupyter.capture.waiting import wait_for
from kafka_jupyter.client import Client, TrainingRun, find, outcome, targets
from kafka_jupyter.client.targets import Target
from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.task import CallbackSpec
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.settings import Settings

if TYPE_CHECKING:
    from kafka_jupyter.capture.send import Prepared
    from kafka_jupyter.models.capture import CapturedFit
    from kafka_jupyter.models.usercode import Included

NO_FIT = (
    "No Keras `fit` was called here, so nothing was sent. Only Keras 3 is captured: a `fit` of tf_keras (Keras 2) or scikit-learn "
    "runs in the kernel as always."
)

Slot = tuple[str, int]  # a cell, and which `fit` of it
T = TypeVar("T")
REMEMBERED = 1000  # slots; a cell that was edited is another one


@dataclasses.dataclass
class Memory:
    """What outlives a session: the run of each `fit` when its cell was last run, and the ids whose submit has an unknown outcome.

    No models: a loop of 200 fits would keep 200 of them alive.
    """

    runs: dict[Slot, tuple[Client, str]] = dataclasses.field(default_factory=dict)  # run id
    unknown: dict[Slot, tuple[str, str]] = dataclasses.field(default_factory=dict)  # run id, digest


def remember(table: dict[Slot, T], slot: Slot, value: T) -> None:
    table.pop(slot, None)
    table[slot] = value
    while len(table) > REMEMBERED:
        del table[next(iter(table))]


memory = Memory()


class Session:
    """`used`: a `fit` was captured, or a session inside this one has taken over."""

    def __init__(self, options: Options, settings: Settings, view: View, place: Place) -> None:
        self.options, self.view, self.place = options, view, place
        self.settings = settings
        self.runs: list[TrainingRun] = []
        self.used = False
        self.closed = False
        self._fits = 0
        self._client: Client | None = None

    def fit(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `model.fit` does in this session: a History, or the TrainingRun in the background."""
        if not self.options.attach:
            patch.guard(model)
        self.used = True
        slot = (self.place.key, self._fits)
        self._fits += 1
        with patch.suspended():
            Client(self.settings).look_ahead()
            prepared = self._prepare(model, args, kwargs)
            if self.options.dry_run:
                return self._dry_run(prepared)
            run = self._adopted(prepared) if self.options.attach else None
            if run is None:
                patch.guard(model)
                self._mention_earlier(slot)
                run = self._submit(slot, prepared)
                checked = self.options.check and prepared.captured.check_rtol is not None and check.due(model)
            else:
                checked = False
            target = self._target(run, prepared.captured)
            remember(memory.runs, slot, (self.client, run.id))
            self.runs.append(run)
            self.view.show(TrainingRun(self.client, run.id, name=run.name, submitted=True))  # without the model
            if self.options.background:
                if checked:
                    check.check_later(self.client, run.id, prepared.captured)
                return run
            run.loosen()  # the model is that of the person who waits here
            if checked:
                check.check(self.client, run.id, prepared.captured)
            wait_for(run, self.client, self.view, self.options, self.place)
            return self._deliver(run, target)

    def close(self) -> None:
        self.closed = True
        self.view.close()

    @property
    def client(self) -> Client:
        """Where nothing is configured, starts the local Kafka if it does not run, and a worker if none is alive."""
        if self._client is None:
            if self.settings.auto_start and not self.settings.bootstrap_servers:
                self._provide()
            self._client = Client(self.settings)
        return self._client

    # --- the steps of `fit`

    def _prepare(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Prepared:
        from kafka_jupyter.models import capture

        with send.progress_of(self.view.note) as progress:
            captured = capture.capture_fit(model, args, kwargs, progress, self._trusted())
        for note in captured.notes:
            self.view.note(note)
        if captured.code is not None and captured.code.files:
            self.view.note(f"Sent along: {', '.join(captured.code.files)}")
        return send.prepare(captured)

    def _trusted(self) -> Included | None:
        """What of a person's own code may travel: None for nothing."""
        from kafka_jupyter.models import usercode

        trust = self.options.trust or self.settings.trust
        if not trust:
            trust = "code" if not self.settings.bootstrap_servers else local.resolve(self.settings).trust or "data"
        if trust == "data" and self.options.include:
            raise errors.SettingsError(name="include", why="modules travel with --trust code only", source="an argument")
        return usercode.included(self.options.include, pathlib.Path.cwd()) if trust == "code" else None

    def _dry_run(self, prepared: Prepared) -> Any:
        from kafka_jupyter.models import callbacks

        self.view.note(send.describe(prepared, self._name(prepared)))
        return callbacks.build([CallbackSpec("History")], ".")[0]

    def _adopted(self, prepared: Prepared) -> TrainingRun | None:
        """An active or succeeded run of mine with this name that learns the same."""
        name = self._name(prepared)
        states = self.client.connection().catch_up().states()
        fitting = [state for state in states if _same(state, name, self.settings.owner, prepared.digest)]
        if not fitting:
            return None
        run_id = max(fitting, key=find.newness).run_id
        self.view.note(f"Attached to {run_id}, which trains the same.")
        return TrainingRun(self.client, run_id, name=name, submitted=True, model=prepared.captured.model)

    def _submit(self, slot: Slot, prepared: Prepared) -> TrainingRun:
        name = self._name(prepared)
        known = memory.unknown.get(slot)
        run_id = known[0] if known is not None and known[1] == prepared.digest else ids.new_run_id(name)
        remember(memory.unknown, slot, (run_id, prepared.digest))
        client = self.client
        task = send.build_task(prepared, lambda: client.store, run_id, name, self.settings.owner, self.options, self.place)
        run = client.submit(task, prepared.captured.model)
        del memory.unknown[slot]
        return run

    def _target(self, run: TrainingRun, captured: CapturedFit) -> Target:
        target = Target(
            client=self.client,
            run_id=run.id,
            model_ref=weakref.ref(captured.model),
            optimizer=captured.optimizer,
            callbacks=captured.live_callbacks,
            specs=captured.callbacks,
            folder=pathlib.Path.cwd(),
        )
        targets.keep(target)
        return target

    def _deliver(self, run: TrainingRun, target: Target) -> Any:
        connection = self.client.connection()
        state = connection.follower().state(run.id)
        assert state is not None
        history = outcome.deliver(connection, state, target)
        targets.settle(target)
        return history

    def _mention_earlier(self, slot: Slot) -> None:
        found = memory.runs.get(slot)
        if found is None:
            return
        earlier = TrainingRun(*found, submitted=True)
        if earlier.ended:
            return
        self.client.connection().catch_up()  # the first submit of a kernel does not wait for the log; what is said here comes from it
        if not earlier.ended:
            self.view.note(
                f"{earlier.id} of this cell is still {earlier.state} ({earlier.progress}): `%kafka_attach {earlier.short}` follows it, "
                f"`%kafka_cancel {earlier.short}` ends it."
            )

    def _provide(self) -> None:
        found = local.endpoint(self.settings)
        if found is not None and (local_daemons.living_workers(local.folder_of(self.settings)) or self._worker_announced()):
            return
        said: set[str] = set()

        def progress(text: str, _part: float | None) -> None:
            if text not in said:
                said.add(text)
                self.view.note(f"{text} …")

        started = local.provide(self.settings, workers=1, progress=progress)
        what = f"a local Apache Kafka ({started.bootstrap_servers}) and one worker now run" if found is None else "one worker now runs"
        why = "Nothing was configured" if found is None else "The local Apache Kafka had no worker"
        self.view.note(f"{why}: {what} in the background. `%kafka_down` or `kafka-jupyter down` stops them.")

    def _worker_announced(self) -> bool:
        """Whether somebody has started one by hand. A worker of the local Kafka runs on this machine; the record of one that was killed
        outlives it by some seconds."""
        return any(daemons.lives(worker.pid) for worker in Client(self.settings).workers())

    def _name(self, prepared: Prepared) -> str:
        return self.options.name or prepared.captured.model_name


def _same(state: RunState, name: str, owner: str, digest: str) -> bool:
    submitted = state.submitted
    return (
        submitted is not None
        and (submitted.name, submitted.owner, submitted.digest) == (name, owner, digest)
        and (not state.terminal or state.state is State.SUCCEEDED)
    )


def no_fit() -> errors.CaptureError:
    return errors.CaptureError(NO_FIT)
