"""A secret of the profile or the environment is in no message, log record, traceback or representation of ours."""

from __future__ import annotations

import io
import logging
import pathlib
import pickle
import traceback
import urllib.parse
import uuid

import confluent_kafka
import pytest

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.settings import Settings

# What librdkafka calls sensitive in its CONFIGURATION.md, and what others put where it does.
SECRET = [
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl_key",
    "ssl.keystore.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.jaas.config",
    "basic.auth.user.info.password",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "JUPYTER_TOKEN",
    "DB_PASSWORD",
]
OPEN = [
    "sasl.username",
    "sasl.mechanism",
    "security.protocol",
    "ssl.key.location",
    "ssl.ca.location",
    "ssl.certificate.pem",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.token.endpoint.url",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "KAFKA_JUPYTER_KEY_DIR",
    "KEYBOARD",
]


def canary() -> str:
    return f"canary/{uuid.uuid4().hex}+é&"


def everywhere(error: BaseException) -> str:
    """What a person, a log and a debugger see of an error."""
    return "\n".join(["".join(traceback.format_exception(error)), repr(error), repr(getattr(error, "fields", ""))])


@pytest.mark.parametrize("name", SECRET)
def test_what_opens_a_door_is_known_by_its_name(name: str) -> None:
    assert redact.is_secret(name)


@pytest.mark.parametrize("name", OPEN)
def test_what_a_person_must_read_to_find_a_fault_is_shown(name: str) -> None:
    assert not redact.is_secret(name)


@pytest.mark.parametrize("name", SECRET)
def test_a_secret_of_the_profile_is_in_no_error_and_no_representation(name: str) -> None:
    secret = canary()
    settings = Settings(bootstrap_servers="kafka.invalid:9092", insecure=True, kafka={name: secret, "sasl.username": "ada"})
    cluster = Cluster(settings)
    assert settings.kafka[name] == secret  # the client gets it
    shown = repr(settings) + repr(settings.replace(profile="x")) + str(cluster.config(group_id="g"))
    error = errors.BrokerError(servers="kafka.invalid:9092", detail=f"cannot use {secret} ({secret!r})", also=[{"at": secret}])
    shown += everywhere(error) + everywhere(pickle.loads(pickle.dumps(error))) + everywhere(errors.KafkaJupyterError(f"no {secret}"))
    forms = [secret, urllib.parse.quote(secret), urllib.parse.quote_plus(secret), repr(secret)[1:-1], secret[7:20]]
    assert not [form for form in forms if form in shown]
    assert "ada" in shown
    assert redact.MASK in shown


@pytest.mark.parametrize("name", ["security.protocol", "socket.timeout.ms", "enable.ssl.certificate.verification", "debug", "acks"])
def test_a_password_in_the_wrong_line_is_not_echoed_as_librdkafka_does(name: str) -> None:
    secret = canary()
    cluster = Cluster(Settings(bootstrap_servers="kafka.invalid:9092", insecure=True, kafka={name: secret}))

    def make() -> None:
        try:
            confluent_kafka.Producer(cluster.config())
        except confluent_kafka.KafkaException as failure:
            raise cluster.translated(failure) from failure

    with pytest.raises(errors.BrokerError, match=name) as caught:
        make()
    assert secret not in everywhere(caught.value)


def test_the_user_and_password_of_a_url_are_in_no_message_and_neither_is_the_password_alone() -> None:
    password = uuid.uuid4().hex
    settings = Settings(store=f"s3://ada:{password}%40x@bucket/path")
    said = repr(settings) + str(errors.StoreUnavailable(detail=f"{settings.store}: the answer to {password}@x was 403"))
    assert password not in said
    assert "bucket/path" in said
    assert password not in redact.clean(f"GET https://eve:{password}z@host/")
    assert "host" in redact.clean("https://eve:p@host/")


def test_a_secret_of_the_environment_is_known_and_a_switch_with_such_a_name_is_not_one(tmp_path: pathlib.Path) -> None:
    secret = canary()
    Settings.from_env({"AWS_SECRET_ACCESS_KEY": secret, "TOKENS": "true"}, tmp_path / "none.toml")
    assert redact.clean(f"signed with {secret}: true") == f"signed with {redact.MASK}: true"


def test_a_log_record_holds_no_secret_with_its_arguments_and_traceback() -> None:
    secret = canary()
    redact.remember(secret)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log = redact.logger("kafka_jupyter.test_redact")
    assert redact.logger("kafka_jupyter.test_redact") is log
    assert len(log.filters) == 1
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        log.debug("trying %s at %d%%", secret, 5)
        log.debug("nothing to hide at %d%%", 6)
        try:
            raise ValueError(secret)
        except ValueError:
            log.exception("no way with {}".format(secret))  # noqa: UP032  # as whoever formats too early does
    finally:
        log.removeHandler(handler)
    said = stream.getvalue()
    assert secret not in said
    assert f"trying {redact.MASK} at 5%" in said
    assert "nothing to hide at 6%" in said
    assert "ValueError" in said
    assert "Traceback" in said


def test_every_logger_of_ours_is_one_that_tells_no_secret() -> None:
    rooms = pathlib.Path(redact.__file__).parent
    own = [
        str(path.relative_to(rooms))
        for path in sorted(rooms.rglob("*.py"))
        if path.name != "redact.py" and "logging.getLogger(__name__)" in path.read_text("utf-8")
    ]
    assert own == []


def test_a_key_is_hidden_line_by_line() -> None:
    lines = [uuid.uuid4().hex * 2 for _ in range(3)]
    redact.know({"ssl.key.pem": "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"])})
    assert not [line for line in lines if line in redact.clean(f"bad base64 in: {lines[1]}")]


def test_short_values_are_left_alone() -> None:
    redact.know({"sasl.password": "abc"})
    assert redact.clean("the abc of Kafka") == "the abc of Kafka"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgres://ada:pa/ss+w@db/x", "postgres://•••@db/x"),
        ("https://x.org:8080/a@b", "https://x.org:8080/a@b"),
        ("git+https://x.org/y@v1", "git+https://x.org/y@v1"),
    ],
)
def test_a_password_may_hold_a_slash_and_a_path_is_none(text: str, left: str) -> None:
    assert redact.clean(text) == left
