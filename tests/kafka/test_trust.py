"""Whose records count on a real Kafka: keys that come and go under load, what a stranger can do who may write, and what is stolen."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Iterator

import pytest

from kafka_jupyter import errors
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster, Message
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.protocol import control, ids, topics
from kafka_jupyter.protocol.rows import EpochEnded
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import keeping
from kafka_jupyter.trust.keys import KeyFolder, OwnKey
from kafka_jupyter.trust.listed import Role
from tests.support.playing import Player
from tests.support.waiting import wait_until

RELOAD_S, SKEW_S = 0.5, 0.5
BOTH = (Role.SUBMITTER, Role.WORKER)


def _now_ms() -> int:
    return int(time.time() * 1000)


@dataclasses.dataclass
class Team:
    """A trust file, and people with keys of their own who share it."""

    settings: Settings
    folder: pathlib.Path

    def settings_of(self, name: str) -> Settings:
        return self.settings.replace(key_dir=self.folder / name, owner=name)

    def join(self, name: str, *roles: Role) -> OwnKey:
        """Trusted before anybody has read the file."""
        key = KeyFolder(self.folder / name).make(_now_ms() - 9_000_000)
        keeping.trust(self.settings, keeping.Exported(key.public, name), roles, _now_ms(), at_once=True)
        return key

    @contextlib.contextmanager
    def log_of(self, name: str) -> Iterator[Log]:
        with contextlib.closing(Log.open(Cluster(self.settings_of(name)), create=True)) as log:
            yield log


@pytest.fixture
def team(settings: Settings, tmp_path: pathlib.Path) -> Team:
    trusting = {"trust_file": tmp_path / "trust.toml", "trust_policy": "require", "trust_reload_s": RELOAD_S, "clock_skew_s": SKEW_S}
    return Team(settings.replace(**trusting, delivery_timeout_s=5.0), tmp_path)


@contextlib.contextmanager
def following(log: Log) -> Iterator[Follower]:
    with contextlib.closing(Follower(log)) as follower:
        follower.start()
        yield follower


def essence(state: RunState | None) -> dict[str, object]:
    """All that a state says, but for how far it was read and how many records meant nothing."""
    assert state is not None
    return {name: getattr(state, name) for name in state.__struct_fields__ if name not in ("upto", "dropped", "lost_claims")}


def test_keys_are_rotated_under_load_and_no_record_is_refused(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    old = team.join("grace", *BOTH)
    until_s = time.monotonic() + 3 * RELOAD_S + 4.0
    written = 0
    with team.log_of("grace") as log, team.log_of("reader") as reading, following(reading) as follower:
        turned = threading.Timer(0.5, lambda: keeping.rotate(team.settings_of("grace"), "grace", _now_ms(), 0, 1))
        turned.start()
        long = _begun(Player.new(log, "long"), follower)
        players = []
        while time.monotonic() < until_s:
            long.rows(EpochEnded(long.next_seq(), long.seq, 1, {"loss": 1.0}))
            long.say(control.Heartbeat(**long.own(), beat=long.seq))
            players.append(player := _begun(Player.new(log), follower))
            player.epoch(0)
            player.succeed()
            written += 8
        long.succeed()
        turned.join()
        done = [*players, long]
        wait_until(lambda: all((s := follower.state(p.run_id)) is not None and s.terminal for p in done), "some never end", within=20)
        wait_until(lambda: all(follower.has_all_rows(p.run_id) for p in done), "rows are missing", within=20)
        assert reading.junk.total() == 0
        assert len(follower.history(long.run_id).epochs) == long.seq
        kids = [start.kid for player in players if (state := follower.state(player.run_id)) for start in state.starts]
        state = follower.state(long.run_id)
        assert state is not None
        assert [start.kid for start in state.starts] == [old.kid], "what has begun under a key ends under it"
    assert kids[0] == old.kid
    assert kids[-1] != old.kid, "the new key was never used"
    assert len(set(kids)) == 2
    with capsys.disabled():
        print(f"\nS8: {written} records under two keys, {kids.index(kids[-1])} of {len(kids)} attempts under the first; 0 refused")


def _begun(player: Player, follower: Follower) -> Player:
    """As a worker does it: what an attempt says is signed as its claim was."""
    player.submit()
    player.claim()
    opened = wait_until(lambda: (state := follower.state(player.run_id)) and state.open, "the claim never wins")
    player.log.gate.signer.bind(player.nonce, opened.kid)
    player.start()
    return player


def test_a_revoked_key_is_refused_by_every_process_from_that_moment_on(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.join("grace", *BOTH)
    key = team.join("mallory", *BOTH)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(team.log_of("mallory"))
        readers = [stack.enter_context(team.log_of("grace")) for _ in range(3)]
        at_ms = keeping.revoke(team.settings, key.kid, _now_ms())
        sent: list[tuple[int, int]] = []  # partition, offset
        while _now_ms() < at_ms + 1500:
            record = control.CancelRequested(run_id=ids.new_run_id("any"), request_id=ids.new_request_id())
            topic, partition = log.topics.place(topics.RUN_CONTROL, record.run_id)
            signed = log.gate.signer.headers("cancel", f"{log.topics.cluster_id}/{topic}", record.run_id.encode(), _json(record))
            sent.append((partition, log.producer.write(topic, partition, record.run_id.encode(), _json(record), signed)))
        messages = [m for place in log.topics.all_places(topics.RUN_CONTROL) for m in log.read_range(place, 0, None)]
        answers = [[_is_read(reader, message) for message in messages] for reader in readers]
        late = stack.enter_context(team.log_of("late"))  # one that comes afterwards judges the same
        answers.append([_is_read(late, message) for message in messages])
    expected = [message.time_ms < at_ms for message in messages]
    assert answers == [expected] * 4
    assert {True, False} == set(expected), "all came on one side"
    with capsys.disabled():
        print(
            f"\nS8: {expected.count(True)} records before a key was revoked are read by 4 readers, {expected.count(False)} behind by none"
        )


def _json(record: control.Record) -> bytes:
    from kafka_jupyter.protocol import codec

    return codec.encode(record)


def _is_read(log: Log, message: Message) -> bool:
    try:
        return log.origin(message).proved
    except errors.BadSignature:
        return False


def test_whoever_writes_every_record_once_more_changes_nothing(team: Team) -> None:
    """With their signatures as they are, to the places where they stood, in every order that chance gives; nobody needs a key for that."""
    team.join("grace", *BOTH)
    team.settings = team.settings.replace(clock_skew_s=120.0)
    with team.log_of("grace") as log, team.log_of("reader") as reading, following(reading) as follower:
        lost, won, waits = Player.new(log, "lost"), Player.new(log, "won"), Player.new(log, "waits")
        won.whole()
        for player in (lost, waits):
            player.submit()
        waits.say(control.PauseRequested(run_id=waits.run_id, request_id=ids.new_request_id()))
        waits.claim()  # loses: the run is paused
        waits.say(control.ResumeRequested(run_id=waits.run_id, request_id=ids.new_request_id()))
        lost.claim()
        lost.start()
        lost.epoch(0)
        for beat in (1, 2, 3):
            lost.say(control.Heartbeat(**lost.own(), beat=beat))
        lost.say(control.Checkpointed(**lost.own(), epoch=1, step=0))
        asked = control.SettingsRequested(run_id=lost.run_id, request_id="s1", settings={"learning_rate": 0.1})
        lost.say(asked)
        lost.say(control.Applied(**lost.own(), request_id="s1", settings=asked.settings, epoch=1))
        players = (lost, won, waits)
        ends = {place: high for place, (_, high) in _bounds(log).items()}
        wait_until(lambda: all(follower.position(place) >= end for place, end in ends.items()), "not all was read")
        before = {player.run_id: (essence(follower.state(player.run_id)), follower.history(player.run_id)) for player in players}
        last = {player.run_id: _last(follower, player) for player in players}
        copies = _replayed(log)
        wait_until(lambda: all(follower.position(place) >= high for place, (_, high) in _bounds(log).items()), "not all was read")
        assert copies == sum(ends.values())
        for player in players:
            assert (essence(follower.state(player.run_id)), follower.history(player.run_id)) == before[player.run_id], player.name
            assert _last(follower, player) == last[player.run_id], f"a copy has kept an attempt of {player.name} alive"


def _last(follower: Follower, player: Player) -> int | None:
    state = follower.state(player.run_id)
    assert state is not None
    return state.open.last if state.open else None


def _bounds(log: Log) -> dict[tuple[str, int], tuple[int, int]]:
    from kafka_jupyter.brokers.reader import Reader

    with contextlib.closing(Reader(log.cluster)) as reader:
        places = [*log.topics.all_places(topics.RUN_CONTROL), *log.topics.all_places(topics.TRAINING_LOG)]
        return {place: reader.bounds(place) for place in places}


def _replayed(log: Log) -> int:
    """All records of control and rows once more, backwards, by a client that knows no key."""
    count = 0
    with contextlib.closing(Producer(log.cluster)) as producer:
        for (topic, partition), (low, high) in _bounds(log).items():
            for message in reversed(list(log.read_range((topic, partition), low, high))):
                producer.write(topic, partition, message.key, message.value, message.headers)
                count += 1
    return count


def test_what_a_stranger_writes_is_counted_and_passed_over(team: Team) -> None:
    team.join("grace", *BOTH)
    KeyFolder(team.folder / "mallory").make(_now_ms() - 9_000_000)
    with team.log_of("grace") as log, team.log_of("reader") as reading, following(reading) as follower:
        run = Player.new(log)
        run.submit()
        with team.log_of("mallory") as theirs:
            cancel = control.CancelRequested(run_id=run.run_id, request_id="c")
            with pytest.raises(errors.NotTrusted, match="not trusted as submitter"):
                theirs.write_control(cancel)
            theirs.send_control(cancel)
            theirs.producer.flush(10)
        log.producer.write(*log.topics.place(topics.RUN_CONTROL, run.run_id), run.run_id.encode(), _json(cancel), ())
        run.claim()
        wait_until(lambda: (state := follower.state(run.run_id)) is not None and state.open is not None, "its claim never wins")
        assert reading.junk == {topics.RUN_CONTROL: 2}
        state = follower.state(run.run_id)
        assert state is not None
        assert (state.state, state.wish) == (State.CLAIMED, "run")


def test_what_a_stolen_key_has_written_is_forgotten_by_whoever_reads_and_by_whoever_comes(team: Team) -> None:
    team.join("grace", *BOTH)
    stolen = team.join("mallory", *BOTH)
    with team.log_of("grace") as log, team.log_of("mallory") as theirs, team.log_of("reader") as reading:
        run, good = Player.new(log), Player.new(log).whole()
        run.submit()
        begin_ms = _now_ms()
        theirs.write_control(control.CancelRequested(run_id=run.run_id, request_id="c"))
        with following(reading) as follower:
            wait_until(lambda: (s := follower.state(run.run_id)) is not None and s.terminal, "the cancel does not count")
            keeping.distrust(team.settings, stolen.kid, begin_ms - 1000)
            wait_until(lambda: isinstance(follower.failure, errors.DistrustChanged), "it goes on to believe what it has read", within=10)
        with following(reading) as again:
            state, other = again.state(run.run_id), again.state(good.run_id)
            assert state is not None
            assert other is not None
            assert (state.state, other.state) == (State.QUEUED, State.SUCCEEDED)
