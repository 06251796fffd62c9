"""A Kafka client that does what confluent-kafka's Python never would: the C library underneath, called by hand."""

from __future__ import annotations

import ctypes
import pathlib

import confluent_kafka

_TOPIC, _PARTITION, _VALUE, _KEY, _HEADERS, _END = 1, 3, 4, 5, 10, 0  # rd_kafka_vtype_t, as rdkafka.h numbers them


def _library() -> ctypes.CDLL:
    home = pathlib.Path(confluent_kafka.__file__).parent
    found = [*home.parent.glob("confluent_kafka.libs/librdkafka*"), *home.glob(".dylibs/librdkafka*")]
    library = ctypes.CDLL(str(found[0]))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = library.rd_kafka_headers_new.restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, text, text, text, ctypes.c_size_t]
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, text, ctypes.c_size_t]
    library.rd_kafka_headers_new.argtypes = [ctypes.c_size_t]
    library.rd_kafka_header_add.argtypes = [pointer, text, ctypes.c_ssize_t, text, ctypes.c_ssize_t]
    library.rd_kafka_flush.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_destroy.argtypes = [pointer]
    return library


def write(servers: str, place: tuple[str, int], key: bytes, value: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """One record with header names of any bytes; returns when it is acked."""
    library, why = _library(), ctypes.create_string_buffer(512)
    config = library.rd_kafka_conf_new()
    assert library.rd_kafka_conf_set(config, b"bootstrap.servers", servers.encode(), why, len(why)) == 0, why.value
    client = library.rd_kafka_new(0, config, why, len(why))
    assert client, why.value
    try:
        made = library.rd_kafka_headers_new(len(headers))
        for name, content in headers:
            assert library.rd_kafka_header_add(made, name, len(name), content, len(content)) == 0
        topic, partition = place
        refused = library.rd_kafka_producev(
            ctypes.c_void_p(client), _TOPIC, topic.encode(), _PARTITION, ctypes.c_int32(partition), _KEY, key, ctypes.c_size_t(len(key)),
            _VALUE, value, ctypes.c_size_t(len(value)), _HEADERS, ctypes.c_void_p(made), _END,
        )  # fmt: skip
        assert refused == 0
        assert library.rd_kafka_flush(client, 10_000) == 0
    finally:
        library.rd_kafka_destroy(client)
