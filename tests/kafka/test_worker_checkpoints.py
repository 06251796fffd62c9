"""Real workers that checkpoint: a run that changes hands ends as one that never did, and leaves three checkpoints behind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import statistics
from collections.abc import Iterator

import msgspec
import pytest

from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.parts import KafkaRef, UrlRef
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, open_store, upload_id
from tests.kafka.conftest import scene
from tests.support.folders import Removable
from tests.support.pace import paced
from tests.support.scene import READY_S, Scene, gone
from tests.support.training import Submission, endless, mlp, submit, task_of
from tests.support.waiting import wait_until

STALL_S = 8  # more than the first step takes on a busy machine
EAGER = {
    "KAFKA_JUPYTER_CHECKPOINT_GAP_S": "0",
    "KAFKA_JUPYTER_CHECKPOINT_SHARE": "1",
    "KAFKA_JUPYTER_STALL_TIMEOUT_S": f"{STALL_S}",
}
EPOCHS = 20
EPOCH_S = 0.2


@pytest.fixture(scope="module")
def eager(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A scene whose workers write a checkpoint at every epoch's end, and kill what stands still for STALL_S. Two of them, to begin with."""
    with scene(module_settings, tmp_path_factory.mktemp("workers"), EAGER) as made:
        two_workers(made)
        yield made


def two_workers(made: Scene) -> None:
    """Starts as many as are missing: they may be killed."""
    live = [worker for worker in made.workers.all if worker.process.poll() is None]
    live += [made.workers.start(f"box{len(made.workers.all)}") for _ in range(2 - len(live))]
    pids = {worker.process.pid for worker in live}  # a killed one is still announced for a while
    wait_until(lambda: pids <= {worker.pid for worker in made.follower.workers()}, "there are not two workers", within=READY_S)


@contextlib.contextmanager
def store_of(made: Scene) -> Iterator[Store]:
    with contextlib.closing(open_store(made.settings, made.log)) as store:
        yield store


def result(made: Scene, state: RunState) -> bytes:
    """The trained state, bytes as they are stored."""
    assert isinstance(state.end, control.Succeeded), state
    with store_of(made) as store:
        return store.read(state.end.parts["state"])


def undisturbed(made: Scene, run: Submission) -> bytes:
    """What the same task gives that is left alone."""
    twin = submit(made.log, task=msgspec.structs.replace(run.task, run_id=ids.new_run_id("twin")))
    state = made.ended(twin)
    assert state.last_n == 1
    return result(made, state)


def of_kind(made: Scene, run: Submission, kind: type) -> list[control.Record]:
    return [record for record in made.records(run) if isinstance(record, kind)]


def checkpointed(made: Scene, run: Submission, count: int = 1) -> list[control.Checkpointed]:
    wait_until(lambda: len(of_kind(made, run, control.Checkpointed)) >= count, f"{run.run_id} has no {count} checkpoints", within=READY_S)
    return of_kind(made, run, control.Checkpointed)  # type: ignore[return-value]


def epochs_of(made: Scene, run: Submission) -> list[int]:
    return [row.epoch for row in made.follower.history(run.run_id).epochs]


def ask(run: Submission, kind: type[control.Request]) -> None:
    run.say(kind(run_id=run.run_id, request_id=ids.new_request_id(), by="ada@test"))


def settled(made: Scene, run: Submission, state: State) -> RunState:
    wait_until(lambda: made.state(run).state is state, f"{run.run_id} is not {state}", within=30)
    return made.state(run)


def test_a_killed_worker_costs_no_more_than_the_epoch_it_was_in(eager: Scene) -> None:
    two_workers(eager)
    run = submit(eager.log, epochs=EPOCHS, callbacks=[paced(EPOCH_S)])
    with store_of(eager) as store:  # as if it had been killed before it could tell
        orphan = upload_id(store.put("orphan", 3, [b"abc"], owner=f"{run.run_id}/1"))
    checkpointed(eager, run, 3)
    holder, pid = eager.holder(run), eager.child_pid(run)
    holder.kill()
    wait_until(lambda: gone(pid), "the child outlived its supervisor")
    state = eager.ended(run)
    assert (state.state, state.last_n) == (State.SUCCEEDED, 2)
    with store_of(eager) as store:
        wait_until(lambda: orphan not in store.uploads_of(f"{run.run_id}/1"), "what nobody has named stays")
        for checkpoint in checkpoints.kept(state):
            store.read(checkpoint.parts["state"])
    last_of_first = [c for c in of_kind(eager, run, control.Checkpointed) if c.n == 1][-1]
    assert isinstance(last_of_first, control.Checkpointed)
    assert state.starts[1].place == (last_of_first.epoch, last_of_first.step)
    assert state.starts[1].place > (2, 0)
    assert epochs_of(eager, run) == list(range(EPOCHS))
    assert result(eager, state) == undisturbed(eager, run)


def test_paused_it_frees_its_slot_and_any_worker_resumes_it_at_the_step(eager: Scene) -> None:
    two_workers(eager)
    run = submit(eager.log, epochs=EPOCHS, rows=1000, batch_size=16)
    eager.running(run)
    holder, pid = eager.holder(run), eager.child_pid(run)
    ask(run, control.PauseRequested)
    paused = settled(eager, run, State.PAUSED)
    assert gone(pid)
    kept = paused.checkpoints[-1]
    wait_until(lambda: all(worker.free for worker in eager.follower.workers()), "its slot is not free")
    holder.terminate()
    ask(run, control.ResumeRequested)
    state = eager.ended(run)
    assert state.state is State.SUCCEEDED
    assert state.starts[1].place == (kept.epoch, kept.step)
    assert state.starts[1].worker != state.starts[0].worker
    assert epochs_of(eager, run) == list(range(EPOCHS))
    assert result(eager, state) == undisturbed(eager, run)


def test_stopped_while_paused_its_last_checkpoint_is_published(eager: Scene) -> None:
    run = endless(eager.log)
    eager.running(run)
    ask(run, control.PauseRequested)
    paused = settled(eager, run, State.PAUSED)
    run.stop()
    state = eager.ended(run)
    assert isinstance(state.end, control.Succeeded)
    assert state.end.stopped_early
    assert state.end.epochs == paused.checkpoints[-1].epoch
    assert epochs_of(eager, run) == list(range(state.end.epochs))


def test_sigterm_hands_over_at_the_very_step(eager: Scene) -> None:
    two_workers(eager)
    run = submit(eager.log, epochs=EPOCHS, rows=1000, batch_size=16)
    eager.running(run)
    holder = eager.holder(run)
    assert holder.terminate() == 0
    wait_until(lambda: holder.process.pid not in {w.pid for w in eager.follower.workers()}, "it never said goodbye")
    state = eager.ended(run)
    assert (state.state, state.last_n) == (State.SUCCEEDED, 2)
    last = [c for c in of_kind(eager, run, control.Checkpointed) if c.n == 1][-1]  # type: ignore[attr-defined]
    assert isinstance(last, control.Checkpointed)
    assert state.starts[1].place == (last.epoch, last.step)
    (released,) = of_kind(eager, run, control.Released)
    assert isinstance(released, control.Released)
    assert released.reason == "shutdown"
    assert result(eager, state) == undisturbed(eager, run)


def test_two_hundred_checkpoints_leave_three(eager: Scene) -> None:
    import keras

    still = mlp(optimizer=keras.optimizers.SGD(0.0))  # learns nothing: the first is as good as all that follow, so it is the best
    run = submit(eager.log, task=task_of(still, "many", 64, 201))
    state = eager.ended(run)
    assert len(of_kind(eager, run, control.Checkpointed)) > 100  # the store may be slower than the epochs: the newest goes next
    kept = {ref for checkpoint in checkpoints.kept(state) for ref in checkpoint.parts.values()}
    assert len(kept) == 3
    result_part = state.end.parts["state"] if isinstance(state.end, control.Succeeded) else None
    expected = {ref.upload for ref in (*kept, result_part) if isinstance(ref, KafkaRef)}
    with store_of(eager) as store:
        wait_until(
            lambda: {s.id for s in store.ls() if s.name.startswith(run.run_id)} == expected,
            "more is left than three checkpoints",
        )
        for checkpoint in checkpoints.kept(state):
            store.read(checkpoint.parts["state"])


@pytest.fixture(scope="module")
def on_files(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Removable]]:
    """A scene whose store is a folder, which is given too; one worker, which has its temporary files beside it."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "own").mkdir()
    shelf = Removable(folder / "shelf")
    store = shelf.path.as_uri()
    settings = module_settings.replace(topic_prefix=f"f{module_settings.topic_prefix}", store=store)
    with scene(settings, folder / "workers", EAGER | {"KAFKA_JUPYTER_STORE": store, "TMPDIR": str(folder / "own")}) as made:
        made.workers.start("only")
        yield made, shelf


def test_while_the_store_is_away_the_newest_checkpoint_waits_and_no_other(on_files: tuple[Scene, Removable]) -> None:
    made, shelf = on_files
    run = submit(made.log, epochs=1_000_000, rows=64, callbacks=[paced(0.02)])
    checkpointed(made, run, 2)
    shelf.take_away()
    begun = made.running(run, 20).open
    assert begun is not None
    lying: list[int] = []
    for epoch in range(begun.epoch, begun.epoch + 80):
        made.follower.wait(lambda epoch=epoch: len(epochs_of(made, run)) >= epoch, READY_S)  # type: ignore[misc]
        lying.append(len(list(shelf.path.with_name("own").rglob("checkpoint-*.safetensors"))))
    # One that is tried, one that waits, one that is being written, and those whose frames a busy supervisor has not read yet.
    assert 1 <= statistics.median(lying) <= 3
    assert max(lying) < 40
    before = len(of_kind(made, run, control.Checkpointed))
    shelf.bring_back()
    newest = checkpointed(made, run, before + 1)[-1]
    assert newest.epoch > begun.epoch + 50
    run.cancel()
    made.ended(run)


def test_a_checkpoint_with_flipped_bytes_gives_way_to_the_one_before_which_is_said(on_files: tuple[Scene, Removable]) -> None:
    made, _ = on_files
    run = submit(made.log, epochs=EPOCHS, callbacks=[paced(EPOCH_S)])
    checkpointed(made, run, 3)
    ask(run, control.PauseRequested)
    before, last = settled(made, run, State.PAUSED).checkpoints
    made.workers.all[0].terminate()  # the next one has nothing in its cache
    part = last.parts["state"]
    assert isinstance(part, UrlRef)
    file = pathlib.Path(part.url.removeprefix("file://"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    made.workers.start("another")
    ask(run, control.ResumeRequested)
    state = made.ended(run)
    assert state.state is State.SUCCEEDED
    assert state.starts[1].place == (before.epoch, before.step)
    assert any("could not be read" in line.text for line in made.follower.history(run.run_id).lines)
    assert epochs_of(made, run) == list(range(EPOCHS))
    assert result(made, state) == undisturbed(made, run)


def test_a_store_that_is_silent_costs_the_worker_the_run_and_not_the_run_itself(on_files: tuple[Scene, Removable]) -> None:
    made, _ = on_files
    (deaf,) = [worker for worker in made.workers.all if worker.process.poll() is None]
    run = submit(made.log, epochs=EPOCHS, callbacks=[paced(EPOCH_S)])
    checkpointed(made, run, 2)
    ask(run, control.PauseRequested)
    part = settled(made, run, State.PAUSED).checkpoints[-1].parts["state"]
    assert isinstance(part, UrlRef)
    file = pathlib.Path(part.url.removeprefix("file://"))
    aside = file.rename(file.with_name("aside"))
    os.mkfifo(file)  # whoever opens it waits for a writer
    ask(run, control.ResumeRequested)
    wait_until(lambda: of_kind(made, run, control.Released)[1:], "the worker holds on to the run", within=READY_S)
    _, released = of_kind(made, run, control.Released)
    assert isinstance(released, control.Released)
    assert (released.reason, f"no byte came or went for {STALL_S} s" in released.detail) == ("unfit", True)
    made.ended(submit(made.log, epochs=1))  # it still works for others
    assert "no byte came" in str(made.follower.card(run.run_id)["waiting"])
    aside.rename(file)
    made.workers.start("hearing")
    assert made.ended(run).state is State.SUCCEEDED
    assert deaf.terminate() == 0


def test_a_child_that_makes_no_step_is_killed_and_the_run_tried_again(eager: Scene) -> None:
    run = submit(eager.log, epochs=EPOCHS, callbacks=[paced(EPOCH_S)])
    checkpointed(eager, run, 2)
    pid = eager.child_pid(run)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: gone(pid), "the child that stands still lives on")
    state = eager.ended(run)
    assert state.state is State.SUCCEEDED
    (failed,) = of_kind(eager, run, control.Failed)
    assert isinstance(failed, control.Failed)
    assert (failed.reason, failed.retryable) == ("stall", True)
    assert f"no step was done for {STALL_S} s" in failed.message
    assert state.starts[1].place > (0, 0)


def test_callbacks_and_their_files_survive_the_worker(eager: Scene) -> None:
    import keras

    two_workers(eager)
    callbacks = [
        paced(EPOCH_S),
        keras.callbacks.ModelCheckpoint("best.keras", monitor="loss", save_best_only=True),
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.01),
    ]
    run = submit(eager.log, task=task_of(mlp(), "files", 256, EPOCHS, callbacks=callbacks))
    checkpointed(eager, run, 3)
    eager.holder(run).kill()
    state = eager.ended(run)
    assert isinstance(state.end, control.Succeeded)
    assert {file.path for file in state.end.files} == {"best.keras", "log.csv"}
    with store_of(eager) as store:
        log = next(store.read(file.part) for file in state.end.files if file.path == "log.csv").decode()
    assert [line.split(",")[0] for line in log.splitlines()] == ["epoch", *map(str, range(EPOCHS))]
    assert result(eager, state) == undisturbed(eager, run)
