"""Which store types exist: the `type` of a `[stores.NAME]` section to its driver.

A new driver is one file in this package and one line in `DRIVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from catalog.stores.base import Store
from catalog.stores.broken import BrokenStore, BrokenStoreSettings
from catalog.stores.cinder.settings import CinderStoreSettings
from catalog.stores.cinder.store import CinderStore
from catalog.stores.filesystem import FilesystemStoreSettings
from catalog.stores.http import HttpStore, HttpStoreSettings
from catalog.stores.memory import MemoryStore, MemoryStoreSettings
from catalog.stores.patient import open_folder
from catalog.stores.policy.remote import RemoteStore
from catalog.stores.policy.settings import RemoteStoreSettings
from catalog.stores.rbd.connection import RbdStoreSettings
from catalog.stores.rbd.store import RbdStore
from catalog.stores.s3.settings import S3StoreSettings
from catalog.stores.s3.store import S3Store
from catalog.stores.swift.store import SwiftStore, SwiftStoreSettings
from catalog.stores.vmware.settings import VmwareStoreSettings
from catalog.stores.vmware.store import VmwareStore


class Driver(Protocol):
    """A function that makes a store from its settings."""

    def __call__(self, name: str, settings: Any) -> Store: ...


DRIVERS: Mapping[str, tuple[type[BaseModel], Driver]] = {
    "cinder": (CinderStoreSettings, CinderStore),
    "filesystem": (FilesystemStoreSettings, open_folder),
    "http": (HttpStoreSettings, HttpStore),
    "memory": (MemoryStoreSettings, MemoryStore),
    "rbd": (RbdStoreSettings, RbdStore),
    "s3": (S3StoreSettings, S3Store),
    "swift": (SwiftStoreSettings, SwiftStore),
    "vmware": (VmwareStoreSettings, VmwareStore),
}
"""type -> (its settings model, its constructor)."""


def open_store(name: str, settings: BaseModel) -> Store:
    """Make the store that a settings section describes.  Opens nothing yet.

    A remote store gets its policy (`[stores.NAME.policy]`); a folder of this host has none.
    """
    if isinstance(settings, BrokenStoreSettings):
        return BrokenStore(name, settings)
    for model, driver in DRIVERS.values():
        if type(settings) is model:
            store = driver(name, settings)
            if isinstance(settings, RemoteStoreSettings):
                return RemoteStore(store, settings.policy)
            return store
    raise TypeError(f"no driver takes {type(settings).__name__}")
