"""Which store types exist: the `type` of a `[stores.NAME]` section to its driver.

A new driver is one file in this package and one line in `DRIVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from catalog.stores.base import Store
from catalog.stores.filesystem import FilesystemStore, FilesystemStoreSettings
from catalog.stores.http import HttpStore, HttpStoreSettings
from catalog.stores.memory import MemoryStore, MemoryStoreSettings


class Driver(Protocol):
    """What makes a store of its settings."""

    def __call__(self, name: str, settings: Any) -> Store: ...


DRIVERS: Mapping[str, tuple[type[BaseModel], Driver]] = {
    "filesystem": (FilesystemStoreSettings, FilesystemStore),
    "http": (HttpStoreSettings, HttpStore),
    "memory": (MemoryStoreSettings, MemoryStore),
}
"""type -> (its settings model, its constructor)."""


def open_store(name: str, settings: BaseModel) -> Store:
    """Make the store a settings section describes.  Opens nothing yet."""
    for model, driver in DRIVERS.values():
        if type(settings) is model:
            return driver(name, settings)
    raise TypeError(f"no driver takes {type(settings).__name__}")
