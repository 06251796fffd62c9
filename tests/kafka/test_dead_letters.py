"""Dead letters: listed, shown, and brought back as they were or edited; through the client and from a shell."""

from __future__ import annotations

import json
import pathlib
import sys

import msgspec
import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client, redrive
from kafka_jupyter.protocol import codec, control, ids, topics
from kafka_jupyter.protocol.letters import TYPE, DeadLetter
from kafka_jupyter.protocol.parts import InlineBytes
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.settings import Settings
from tests.support import raw
from tests.support.cli import cli
from tests.support.playing import Player, task
from tests.support.waiting import wait_until


def bury(log: Log, letter: DeadLetter) -> None:
    log.send(topics.TASK_DLQ, letter.run_id, msgspec.json.encode(letter), TYPE)
    assert log.producer.flush(10) == 0


def dead(log: Log, name: str = "digits") -> Player:
    """A run that died three times behind a checkpoint, and its letter."""
    player = Player.new(log, name=name)
    place = player.submit()
    for n in range(3):
        player.claim()
        player.start(epoch=1 if n else 0)
        if not n:
            parts = {"state": InlineBytes(b"weights")}
            player.say(control.Checkpointed(**player.own(), epoch=1, step=0, parts=parts))
        player.say(control.Failed(**player.own(), retryable=True, reason="signal", error="ChildDied", message="killed by signal 9"))
    player.say(control.Dead(run_id=player.run_id, reaper="box-1"))
    bury(log, DeadLetter(player.run_id, "ChildDied: killed by signal 9", place=place, attempts=3, traceback="no traceback", by="box-1"))
    return player


def unreadable(log: Log) -> DeadLetter:
    """The letter of a task that somebody wrote by hand, with a string for a number."""
    run_id = ids.new_run_id("broken")
    text = codec.encode(task(run_id, name="broken")).decode().replace('"epochs":3', '"epochs":"three"')
    assert "three" in text
    topic, partition = log.topics.place(topics.TASK, run_id)
    offset = raw.write(log, (topic, partition), run_id.encode(), text.encode())
    letter = DeadLetter(
        run_id, "it is not a task of kafka_jupyter", place=control.TaskPlace(topic, partition, offset), task=text, by="box-1"
    )
    bury(log, letter)
    return letter


def tasks(log: Log, run_id: str) -> list[Task]:
    place = log.topics.place(topics.TASK, run_id)
    read = [log.decode(message) for message in log.read_range(place, 0, None)]
    return [record for record in read if isinstance(record, Task) and record.run_id == run_id]


def test_letters_come_newest_first_each_task_once_and_junk_is_counted(client: Client, log: Log) -> None:
    first, second = dead(log), unreadable(log)
    bury(log, second)  # another worker has buried it as well
    log.send(topics.TASK_DLQ, "junk", b"\xff no letter", TYPE)
    log.send(topics.TASK_DLQ, "newer", b'{"type": "dead_letter", "v": 2, "run_id": "newer", "why": "?"}', TYPE)
    log.producer.flush(10)
    assert [buried.letter.run_id for buried in client.dead_letters()] == [second.run_id, first.run_id]
    assert [buried.letter.run_id for buried in client.dead_letters(1)] == [second.run_id]
    assert client.connection().log.junk[topics.TASK_DLQ] >= 2


def test_an_unknown_letter_is_answered_with_the_nearest(client: Client, log: Log) -> None:
    with pytest.raises(errors.NoLetter, match="none at all"):
        redrive.find([], "digits")
    player = dead(log)
    with pytest.raises(errors.NoLetter, match=player.run_id):
        redrive.find(client.dead_letters(), player.run_id[:-1] + "-")


def test_a_dead_run_is_redriven_from_its_checkpoint_and_once(client: Client, log: Log) -> None:
    player = dead(log)
    (buried,) = client.dead_letters()
    again = client.redrive(buried)
    assert client.attach(player.run_id).retry() == client.redrive(buried) == again
    first, *more = tasks(log, again.id)
    assert more == []
    assert first.resume is not None
    assert (first.retry_of, first.resume.epoch) == (player.run_id, 1)
    wait_until(lambda: again.state == "QUEUED", "it was never announced")


def test_a_task_that_cannot_be_read_is_redriven_only_with_one_that_can(client: Client, log: Log) -> None:
    letter = unreadable(log)
    (buried,) = client.dead_letters()
    with pytest.raises(errors.BadTask, match=r"Expected `int`, got `str` - at `\$.fit.epochs`"):
        client.redrive(buried)
    repaired = redrive.task_from(redrive.with_values(letter.task.encode(), ["fit.epochs=4"], "the task"), "the task")
    again = client.redrive(buried, repaired)
    assert again.id.startswith("broken-")
    assert client.redrive(buried, repaired) == again
    (written,) = tasks(log, again.id)
    assert (written.fit.epochs, written.retry_of) == (4, letter.run_id)
    with pytest.raises(errors.RetriedAlready, match=again.id):
        client.redrive(buried, msgspec.structs.replace(repaired, seed=99))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "Input data was truncated"),
        (b'{\n  "type": "task",\n  oops\n}', r"line 3, column 3"),
        (b'{"type": "submitted", "run_id": "a-1"}', "has no place here"),
        (b'{"type": "task", "run_id": "a-1"}', "missing required field `name`"),
        (b'{"type": "task", "v": 2, "run_id": "a-1"}', "newer than this kafka_jupyter"),
        (b"[" * 100_000, "is no task that can be submitted"),
        (b"\xff", "is no task that can be submitted"),
    ],
)
def test_what_is_no_task_says_where(text: bytes, why: str) -> None:
    with pytest.raises(errors.BadTask, match=why) as caught:
        redrive.task_from(text, "edited.json")
    assert str(caught.value).startswith("edited.json is no task")


def test_values_of_a_task_are_set_by_their_path() -> None:
    text = redrive.with_values(codec.encode(task("a-1")), ["fit.epochs=30", "labels.team=blue", "seed=7"], "the task")
    changed = redrive.task_from(text, "the task")
    assert (changed.fit.epochs, changed.labels, changed.seed) == (30, {"team": "blue"}, 7)
    for wrong in ("epochs", "=3", "name.first=3"):
        with pytest.raises(errors.BadTask, match="write PATH=VALUE"):
            redrive.with_values(text, [wrong], "the task")


def test_the_shell_lists_shows_and_redrives(settings: Settings, log: Log) -> None:
    assert cli("dlq", "ls", settings=settings).out == "no dead letters\n"
    player, letter = dead(log), unreadable(log)
    listed = cli("dlq", "ls", settings=settings).out
    assert [line.split()[0] for line in listed.splitlines()] == ["run", letter.run_id, player.run_id]
    assert "ChildDied: killed by signal 9" in listed
    assert [entry["letter"]["run_id"] for entry in json.loads(cli("dlq", "ls", "--json", settings=settings).out)] == [
        letter.run_id,
        player.run_id,
    ]
    shown = cli("dlq", "show", player.run_id[:-4], settings=settings).out
    assert "attempts  3" in shown
    assert "no traceback" in shown
    assert '    "epochs": "three"' in cli("dlq", "show", letter.run_id, settings=settings).out
    said = cli("dlq", "redrive", player.run_id, "--epochs", "7", "--learning-rate", "1e-4", "--label", "why=again", settings=settings)
    assert said.out.startswith(f"{player.run_id} is redriven as digits-")
    new = said.out.split()[-1]
    assert [(t.fit.epochs, t.labels) for t in tasks(log, new)] == [(7, {"why": "again"})]


def test_a_task_is_redriven_from_a_file_or_an_editor(
    settings: Settings, log: Log, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = unreadable(log)
    file = tmp_path / "edited.json"
    file.write_text(letter.task)
    said = cli("dlq", "redrive", letter.run_id, "--task", str(file), settings=settings)
    assert isinstance(said.error, errors.BadTask)
    assert f"{file} is no task that can be submitted: Expected `int`" in str(said.error)
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\npath = pathlib.Path(sys.argv[1])\npath.write_text(path.read_text().replace('\"three\"', '12'))\n"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    said = cli("dlq", "redrive", letter.run_id, "--edit", settings=settings)
    assert said.code == 0, said
    assert tasks(log, said.out.split()[-1])[0].fit.epochs == 12
    monkeypatch.setenv("EDITOR", "true")
    said = cli("dlq", "redrive", letter.run_id, "--edit", settings=settings)
    assert said.code == 1
    assert "nothing was saved" in said.out


def test_pause_resume_ctl_and_retry_are_asked_for_from_a_shell(settings: Settings, log: Log) -> None:
    player = Player.new(log)
    player.submit()
    assert f"{player.run_id}: asked to pause. `kafka-jupyter resume digits-" in cli("pause", "digits", settings=settings).out
    assert json.loads(cli("runs", "--json", settings=settings).out)[0]["state"] == "PAUSED"
    assert cli("resume", "digits", settings=settings).out == f"{player.run_id}: asked to go on.\n"
    said = cli("ctl", "digits", "lr=1e-4", settings=settings)
    assert said.out == f"{player.run_id}: asked for learning_rate 0.0001, from the end of its next batch or from its next start.\n"
    for words in (("ctl", "digits", "momentum=1"), ("ctl", "digits", "lr=fast"), ("retry", "digits", "--memory", "much")):
        assert cli(*words, settings=settings).code == 2
    assert isinstance(cli("ctl", "digits", "lr=-1", settings=settings).error, errors.BadWish)
    assert isinstance(cli("retry", "digits", settings=settings).error, errors.CannotRetry)
    cli("cancel", "digits", settings=settings)
    said = cli("retry", "digits", "--epochs", "5", "--memory", "2GiB", "--device", "gpu", settings=settings)
    assert said.out.startswith(f"{player.run_id} is retried as digits-")
    (written,) = tasks(log, said.out.split()[-1])
    assert (written.fit.epochs, written.requirements.memory, written.requirements.device) == (5, 2 << 30, "gpu")
