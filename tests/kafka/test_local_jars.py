"""Kafka's jars are fetched once, whole, from whatever mirror is named, and checked."""

from __future__ import annotations

import functools
import http.server
import pathlib
import threading
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers import local_archive, local_jars, local_java, local_nodes
from kafka_jupyter.brokers.local import Endpoint
from kafka_jupyter.errors import LocalKafkaError
from kafka_jupyter.settings import Settings

pytestmark = pytest.mark.kafka


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves this user's Maven repository; `cut` and `swapped` are answered wrongly, the first time or always."""

    cut: set[str]
    swapped: set[str]

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name in self.swapped:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"virus")
        elif name in self.cut:
            self.cut.remove(name)
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"PK")
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(kafka: Endpoint) -> Iterator[tuple[str, type[Mirror]]]:
    """A Maven server on the loopback with all jars (the session's Kafka has fetched them)."""
    handler = type("Handler", (Mirror,), {"cut": set(), "swapped": set()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(local_jars.repository())))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def empty(tmp_path: pathlib.Path, mirror: object, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A Maven repository with nothing in it, used from now on."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    return tmp_path / "m2"


def test_all_jars_are_fetched_with_progress_and_a_cut_download_is_repeated(
    empty: pathlib.Path, mirror: tuple[str, type[Mirror]], bare_settings: Settings
) -> None:
    url, handler = mirror
    handler.cut = {"scala-library-2.13.18.jar"}
    told: list[float] = []
    path = local_jars.classpath(bare_settings.replace(maven_url=url), lambda _text, part: told.append(part or 0.0))
    assert handler.cut == set()
    assert local_jars.missing() == []
    assert local_jars.altered() == []
    assert all(pathlib.Path(jar).is_relative_to(empty) for jar in path.split(":"))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 50
    assert [p.name for p in local_jars.own_folder().iterdir()] == ["lock"]


def test_a_jar_with_another_content_is_never_used(empty: pathlib.Path, mirror: tuple[str, type[Mirror]], bare_settings: Settings) -> None:
    url, handler = mirror
    handler.swapped = {"snakeyaml-2.5.jar"}
    with pytest.raises(LocalKafkaError, match=r"org\.yaml:snakeyaml:2\.5 from http://127.*sha256 differs.*KAFKA_JUPYTER_MAVEN_URL"):
        local_jars.classpath(bare_settings.replace(maven_url=url), local_jars.silent)
    assert [jar.coordinate for jar in local_jars.missing() if "snakeyaml" in jar.coordinate] == ["org.yaml:snakeyaml:2.5"]


def test_without_a_network_the_first_start_says_what_is_needed(empty: pathlib.Path, bare_settings: Settings) -> None:
    with pytest.raises(LocalKafkaError, match=r"could not be fetched.*needed once.*KAFKA_JUPYTER_BOOTSTRAP_SERVERS"):
        local_jars.classpath(bare_settings.replace(maven_url="http://127.0.0.1:9"), local_jars.silent)


def test_a_shortened_jar_counts_as_missing(empty: pathlib.Path) -> None:
    jar = local_jars.jars()[0]
    (empty / jar.path).parent.mkdir(parents=True)
    (empty / jar.path).write_bytes(b"PK")
    assert jar in local_jars.missing()
    assert local_jars.altered() == [jar]


def test_the_archive_of_classes_is_made_once_and_a_broker_starts_with_it(
    kafka: Endpoint, tmp_path: pathlib.Path, bare_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    classpath = local_jars.classpath(bare_settings, local_jars.silent)
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    archive = local_archive.make(classpath)
    made = archive.stat()
    assert made.st_size > 10 << 20
    assert local_archive.make(classpath).stat().st_mtime == made.st_mtime
    assert f"-XX:AOTCache={archive}" in local_java.command(bare_settings, classpath)
    assert {p.name for p in archive.parent.iterdir()} == {archive.name, archive.with_suffix(".lock").name}

    ports = local_nodes.choose_ports(1, [])
    folder = tmp_path / "node"
    local_nodes.configure(folder, ports)
    assert local_nodes.format_new(folder, local_java.command(bare_settings, classpath), 1) == local_nodes.cluster_id(folder)
