"""Artifacts: bytes that are too large for a record, in Kafka itself or at an fsspec URL, and their local cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka_jupyter.errors import SettingsError
from kafka_jupyter.protocol.parts import KafkaRef, UrlRef
from kafka_jupyter.settings import Settings
from kafka_jupyter.store.base import Lease, Shelf, Store, Stored, upload_id
from kafka_jupyter.store.cache import Cache
from kafka_jupyter.store.source import Chunks, Progress, digest

if TYPE_CHECKING:
    from kafka_jupyter.brokers.log import Log

__all__ = ["Chunks", "Lease", "Progress", "Store", "Stored", "digest", "open_store", "upload_id"]


def open_store(settings: Settings, log: Log | None = None) -> Store:
    """The store that `settings.store` names: `kafka:` (needs `log`) or an fsspec URL. Artifacts in Kafka are always readable where
    there is a log.

    Raises SettingsError, StoreUnavailable (the package for the URL is not installed), StoreError (no cache folder).
    """
    shelves: dict[type[KafkaRef] | type[UrlRef], Shelf] = {}
    if log is not None:
        from kafka_jupyter.store.kafka_store import KafkaShelf

        shelves[KafkaRef] = KafkaShelf(settings, log)
    if settings.store.rstrip(":/") == "kafka":
        if log is None:
            raise SettingsError(name=f"store={settings.store!r}", why="it needs a Kafka cluster", source="the settings")
        return Store(shelves[KafkaRef], Cache(settings.cache_dir, settings.cache_limit), shelves)
    from kafka_jupyter.store.fsspec_store import UrlShelf

    shelves[UrlRef] = UrlShelf(settings.store)
    return Store(shelves[UrlRef], Cache(settings.cache_dir, settings.cache_limit), shelves)
