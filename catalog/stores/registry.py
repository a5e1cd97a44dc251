"""Which store types exist: the `type` of a `[stores.NAME]` section to its driver.

A new driver is one package beside this file and one line in `DRIVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from catalog.stores.base import Store
from catalog.stores.broken import BrokenStore, BrokenStoreSettings
from catalog.stores.cinder.settings import CinderStoreSettings
from catalog.stores.cinder.store import CinderStore
from catalog.stores.folder.shared import open_folder
from catalog.stores.folder.store import FilesystemStoreSettings
from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http.store import HttpStore
from catalog.stores.memory import MemoryStore, MemoryStoreSettings
from catalog.stores.policy.remote import RemoteStore
from catalog.stores.policy.settings import PolicySettings, RemoteStoreSettings
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


def open_store(name: str, settings: Any) -> Store:
    """Make the store that a settings section describes.  Opens nothing yet.

    A remote store, and a folder on a server, get their policy (`[stores.NAME.policy]`).
    """
    if isinstance(settings, BrokenStoreSettings):
        return BrokenStore(name, settings)
    _model, driver = DRIVERS[settings.type]
    store, policy = driver(name, settings), _policy_of(settings)
    return store if policy is None else RemoteStore(store, policy)


def _policy_of(settings: Any) -> PolicySettings | None:
    match settings:
        case RemoteStoreSettings():
            return settings.policy
        case FilesystemStoreSettings():
            return settings.policy_of_server
    return None
