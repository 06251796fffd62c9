"""Real child processes of a real forkserver; what they run is in children_entries.py (no Keras, so these are quick)."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

from kafka_jupyter.protocol import frames
from kafka_jupyter.training import cage
from kafka_jupyter.worker import environment
from kafka_jupyter.worker.children import Children
from tests.support.waiting import wait_until
from tests.support.watching import Watched

HERE = pathlib.Path(__file__).parent
ENTRIES = {"train": "tests.unit.children_entries:wait_for_orders", "equipment": "tests.unit.children_entries:equipment"}


@pytest.fixture(scope="module")
def children():
    made = Children(**ENTRIES)
    yield made
    made.close()


def order(watched, what):
    watched.child.send(frames.Apply(request_id="1", settings={"do": what}))


def alive(pids, within):
    """The processes of `pids` that still run after `within` seconds."""
    deadline = time.monotonic() + within
    return [pid for pid in pids if not ends(pid, max(0.0, deadline - time.monotonic()))]


def forked(watched):
    """Its pid, which the forkserver tells: perhaps later than the child speaks."""
    return wait_until(lambda: watched.child.pid, "its fork was not told")


def ends(pid, within):
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within)[0])
    finally:
        os.close(handle)


def test_a_child_starts_obeys_and_ends_with_status_0(children):
    watched = Watched(children)
    pid = watched.told("pid")
    assert forked(watched) == pid
    watched.child.send(frames.Stop())
    ended = watched.exit()
    assert (ended.code, ended.signal, ended.terminated, ended.detail, ended.forked) == (0, 0, False, "", True)
    assert ended.memory > 1 << 20


def test_each_child_has_its_own_session_and_group_and_one_thread(children):
    watched = Watched(children)
    order(watched, "threads")
    pid = forked(watched)
    assert (watched.told("group"), watched.told("session"), watched.told("threads")) == (pid, pid, 1)
    watched.child.terminate(0)
    watched.exit()


def test_lines_of_python_and_c_code_arrive_and_a_progress_bar_is_one_line(children):
    watched = Watched(children)
    order(watched, "speak")
    watched.child.send(frames.Stop())
    watched.exit()
    assert [text for text, stream in watched.lines if stream == "stderr"] == ["and stderr"]
    out = [text for text, stream in watched.lines if stream == "stdout"]
    assert out[:2] == ["from Python", "epoch 3"]
    assert sorted(out[2:]) == ["from C", "no newline at the end, ünïcödé"]


def test_a_flood_of_lines_arrives_whole_and_an_endless_line_is_cut(children):
    watched = Watched(children)
    order(watched, "flood")
    watched.child.send(frames.Stop())
    watched.exit()
    texts = [text for text, _ in watched.lines]
    assert texts[:-1] == [f"line {i} {'x' * 100}" for i in range(20_000)]
    assert texts[-1].startswith("yyy")
    assert texts[-1].endswith("more)")
    assert len(texts[-1]) <= 4096


def test_what_is_said_last_comes_before_the_end_and_nothing_after_it(children):
    watched = Watched(children)
    order(watched, "leave words")
    watched.child.send(frames.Stop())
    watched.exit()
    assert sum(isinstance(frame, frames.Batch) for frame in watched.frames) == 2000
    assert [text for text, _ in watched.lines] == [f"last {i}" for i in range(500)]
    assert watched.after_exit == 0


def test_terminate_ends_a_child_and_its_deaf_grandchild_within_a_second(children):
    watched = Watched(children)
    order(watched, "grandchild")
    grandchild = watched.told("grandchild")
    begun = time.monotonic()
    watched.child.terminate(60)
    ended = watched.exit()
    assert time.monotonic() - begun < 1.0
    assert (ended.signal, ended.terminated) == (signal.SIGTERM, True)
    assert alive([grandchild], within=1) == []


def test_a_child_that_is_ended_while_it_begins_ends(children):
    begun = [Watched(children) for _ in range(50)]
    for watched in begun:
        watched.child.terminate(0)
    assert {watched.exit().signal for watched in begun} == {signal.SIGKILL}


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(children):
    watched = Watched(children)
    order(watched, "deaf")
    watched.told("deaf")
    watched.child.terminate(60)
    watched.child.terminate(0.3)
    ended = watched.exit()
    assert (ended.signal, ended.terminated) == (signal.SIGKILL, True)


def test_a_child_that_ends_takes_its_grandchild_along(children):
    watched = Watched(children)
    order(watched, "grandchild")
    grandchild = watched.told("grandchild")
    watched.child.send(frames.Stop())
    assert watched.exit().code == 0
    assert alive([grandchild], within=1) == []


def test_a_segfault_is_reported_with_its_signal_and_its_python_stack(children):
    watched = Watched(children)
    order(watched, "segfault")
    ended = watched.exit()
    assert (ended.signal, ended.terminated, ended.out_of_memory) == (signal.SIGSEGV, False, False)
    assert any("Segmentation fault" in text for text, _ in watched.lines)
    assert any("_segfault" in text for text, _ in watched.lines)


def test_a_kill_from_outside_is_reported_with_its_signal(children):
    watched = Watched(children)
    os.kill(watched.told("pid"), signal.SIGKILL)
    ended = watched.exit()
    assert (ended.signal, ended.terminated) == (signal.SIGKILL, False)


def test_an_exception_that_leaves_the_entry_is_status_1_and_its_traceback_is_in_the_lines(children):
    watched = Watched(children)
    order(watched, "raise")
    assert watched.exit().code == 1
    assert any("an error that nobody catches" in text for text, _ in watched.lines)


def test_a_child_that_speaks_junk_is_killed_and_the_exit_says_so(children):
    watched = Watched(children)
    order(watched, "junk")
    ended = watched.exit()
    assert "did not speak our language" in ended.detail


def test_a_child_sees_only_the_allowed_environment():
    secrets = {
        "KAFKA_JUPYTER_BOOTSTRAP_SERVERS": "x", "AWS_SECRET_ACCESS_KEY": "x", "JUPYTERHUB_API_TOKEN": "x",
        "TF_TOKEN_app_terraform_io": "x", "TF_VAR_password": "x", "HF_TOKEN": "x", "JPY_API_TOKEN": "x", "SSH_AUTH_SOCK": "x",
    }  # fmt: skip
    needed = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "2"}
    children = Children(environ={**secrets, **needed}, **ENTRIES)
    try:
        watched = Watched(children)
        order(watched, "environment")
        found = watched.told("environ")
        assert set(found.pop(cage.HELD).split(",")) <= set(cage.PARTS)
        assert found == environment.for_child({}) | needed
    finally:
        children.close()


def test_tensorflow_is_quiet_and_shares_a_gpu_unless_somebody_says_otherwise():
    assert environment.for_child({}) == {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    assert environment.for_child({"TF_CPP_MIN_LOG_LEVEL": "0"})["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_a_child_holds_no_descriptor_but_its_own(children):
    others = [Watched(children) for _ in range(3)]
    watched = Watched(children)
    order(watched, "descriptors")
    held = watched.told("descriptors")
    kinds = sorted(target.partition(":")[0] for target in held.values() if not target.startswith("/proc/"))
    assert kinds == ["/dev/null", "pipe", "pipe", "socket"]
    for other in [*others, watched]:
        other.child.terminate(0)
        other.exit()


def test_fifty_children_leave_no_descriptor_and_no_process_behind(children):
    def held():
        return (
            len(os.listdir("/proc/self/fd")),
            len(os.listdir(f"/proc/{children.forkserver_pid}/fd")),
            len(psutil.Process(children.forkserver_pid).children()),
        )

    ended = Watched(children)
    ended.child.terminate(0)
    ended.exit()
    first = Watched(children)
    first.child.send(frames.Stop())
    first.exit()
    before = held()
    for _ in range(10):
        batch = [Watched(children) for _ in range(5)]
        for watched in batch:
            watched.child.send(frames.Stop())
        for watched in batch:
            assert watched.exit().code == 0
    assert all(now <= was for now, was in zip(held(), before, strict=True))  # what is left of tests before may go meanwhile


def test_a_dead_forkserver_ends_its_children_and_is_replaced():
    children = Children(**ENTRIES)
    try:
        watched = Watched(children)
        order(watched, "grandchild")
        grandchild = watched.told("grandchild")
        os.kill(children.forkserver_pid, signal.SIGKILL)
        ended = watched.exit()
        assert ended.signal == signal.SIGKILL
        assert "forked from died (signal 9)" in ended.detail
        assert alive([watched.child.pid, grandchild], within=2) == []
        again = Watched(children)
        again.child.send(frames.Stop())
        assert again.exit().code == 0
    finally:
        children.close()


def test_close_ends_children_and_forkserver_and_tells_every_end():
    children = Children(**ENTRIES)
    watched = [Watched(children) for _ in range(3)]
    pids = [w.told("pid") for w in watched] + [children.forkserver_pid]
    children.close()
    assert [(w.exits[0].signal, w.exits[0].terminated) for w in watched] == [(signal.SIGKILL, True)] * 3
    assert alive(pids, within=2) == []


def test_a_supervisor_killed_with_sigkill_leaves_no_process_behind(tmp_path):
    note = tmp_path / "pids.json"
    supervisor = subprocess.Popen(
        [sys.executable, str(HERE / "children_entries.py"), str(note)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        deadline = time.monotonic() + 60
        watcher = psutil.Process(supervisor.pid)
        while not note.exists():
            assert time.monotonic() < deadline, "the supervisor did not start its children"
            with pytest.raises(psutil.TimeoutExpired):
                watcher.wait(0.05)
        pids = json.loads(note.read_text())
        assert len(pids) == 4
        assert all(psutil.pid_exists(pid) for pid in pids)
    finally:
        supervisor.kill()
        supervisor.wait()
    assert alive(pids, within=3) == []


def test_equipment_is_what_the_throw_away_child_found(children):
    assert children.equipment(30) == frames.Equipment(versions={"python": "3"}, devices=["cpu"])


def test_an_equipment_child_that_fails_makes_the_worker_unfit_and_says_why():
    children = Children(train=ENTRIES["train"], equipment="tests.unit.children_entries:broken_equipment")
    try:
        assert "no such device" in children.equipment(30).unfit
    finally:
        children.close()


def test_a_failed_import_makes_the_worker_unfit_and_a_start_says_why():
    children = Children(train="tests.unit.children_entries:wait_for_orders", equipment="no_such_module:main")
    try:
        assert "ModuleNotFoundError: No module named 'no_such_module'" in children.equipment(30).unfit
        ended = Watched(children).exit()
        assert "unfit" in ended.detail
        assert "no_such_module" in ended.detail
        assert "no_such_module" in children.unfit
        assert not ended.forked
    finally:
        children.close()


def test_a_forkserver_that_dies_while_it_imports_is_told_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "dies_on_import.py").write_text("import os, sys; print('illegal instruction, or so', file=sys.stderr); os.abort()")
    monkeypatch.syspath_prepend(tmp_path)
    children = Children(train="dies_on_import:main", equipment=ENTRIES["equipment"])
    try:
        unfit = children.equipment(30).unfit
        assert "died while it imported Keras (signal 6)" in unfit
        assert "illegal instruction, or so" in unfit
        ended = Watched(children).exit()
        assert "signal 6" in ended.detail
        assert not ended.forked
    finally:
        children.close()


def spare(children):
    """The pid of a spare child, once we have heard that it was forked."""
    children.keep_spare()
    return wait_until(lambda: children._spare.pid, "no spare child was forked", within=30)


def test_a_spare_child_is_forked_ahead_and_the_next_start_gives_it(children):
    ahead = spare(children)
    children.keep_spare()
    watched = Watched(children)
    order(watched, "threads")
    assert (watched.told("group"), watched.child.pid) == (ahead, ahead)
    watched.child.send(frames.Stop())
    assert watched.exit().code == 0
    another = Watched(children)
    assert another.told("pid") != ahead
    another.child.terminate(0)
    another.exit()


def test_a_spare_child_that_died_unused_is_made_anew_when_it_is_needed(children):
    ahead = spare(children)
    os.kill(ahead, signal.SIGKILL)
    wait_until(lambda: ahead not in {child.pid for child in children._live.values()}, "its end was not heard")
    watched = Watched(children)
    assert watched.told("pid") != ahead
    watched.child.send(frames.Stop())
    ended = watched.exit()
    assert (ended.code, ended.signal, ended.terminated) == (0, 0, False)


def test_a_spare_child_ends_with_its_children():
    own = Children(**ENTRIES)
    own.keep_spare()
    watched = wait_until(
        lambda: own.forkserver_pid and psutil.Process(own.forkserver_pid).children(), "no spare child was forked", within=30
    )
    own.close()
    assert alive([child.pid for child in watched], within=5) == []


def test_no_process_can_be_started_for_a_while_and_the_thread_lives(monkeypatch):
    children = Children(**ENTRIES)
    try:
        running = wait_until(lambda: children.forkserver_pid, "no forkserver was started")
        before = Watched(children)
        forked(before)
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        held = len(os.listdir("/proc/self/fd"))
        os.kill(running, signal.SIGKILL)
        assert before.exit().signal == signal.SIGKILL
        for _ in range(3):
            ended = Watched(children).exit()
            assert not ended.forked
            assert "no child could be started: [Errno 2]" in ended.detail
        assert len(os.listdir("/proc/self/fd")) < held
        monkeypatch.undo()
        again = Watched(children)
        again.child.send(frames.Stop())
        assert again.exit().code == 0
        assert children.failure is None
    finally:
        children.close()


def test_what_ends_the_thread_is_kept_for_whoever_asks():
    def wrong(_):
        raise ZeroDivisionError("not ours")

    children = Children(**ENTRIES)
    children.start(wrong, lambda *_: None, lambda _: None)
    failure = wait_until(lambda: children.failure, "nothing is told", within=30)
    assert isinstance(failure, ZeroDivisionError)
    children.close()
