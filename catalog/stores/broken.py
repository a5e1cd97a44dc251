"""A store whose section of the configuration is wrong.

It is in the tree, and every call names the mistake.  So one mistake stops neither the other
stores nor the program.  Safe from several threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, ConfigDict

from catalog.errors import StoreRefused
from catalog.stores.base import (
    Capability,
    DataReader,
    DataWriter,
    LeavesNothing,
    Stat,
    Usage,
    WithoutPolicy,
)


class BrokenStoreSettings(BaseModel):
    """Takes the place of a section that is not valid."""

    model_config = ConfigDict(frozen=True)

    problem: str
    """The mistake: its key and what is allowed.  Never a value, which may be a secret."""


class BrokenStore(WithoutPolicy, LeavesNothing):
    """Refuses everything with the mistake as the reason."""

    capabilities = Capability.WRITE
    """A guess.  It lets an upload fail with the mistake as its reason; without WRITE it would
    fail because the store takes no data."""

    def __init__(self, name: str, settings: BrokenStoreSettings) -> None:
        self.name = name
        self._problem = settings.problem

    def initialize(self) -> None:
        """Raise StoreRefused."""
        self._refuse()

    def check(self) -> None:
        """Raise StoreRefused."""
        self._refuse()

    def open(self, url: str) -> DataReader:
        """Raise StoreRefused."""
        self._refuse()

    def stat(self, url: str) -> Stat:
        """Raise StoreRefused."""
        self._refuse()

    def writer(self, key: str, size: int | None = None) -> DataWriter:
        """Raise StoreRefused."""
        self._refuse()

    def delete(self, url: str) -> None:
        """Raise StoreRefused."""
        self._refuse()

    def copy(self, url: str, key: str) -> str:
        """Raise StoreRefused."""
        self._refuse()

    def usage(self) -> Usage:
        """Raise StoreRefused."""
        self._refuse()

    def url_of(self, key: str) -> str:
        """Raise StoreRefused."""
        self._refuse()

    def keys(self) -> Iterator[str]:
        """Raise StoreRefused."""
        self._refuse()

    def staging_folder(self) -> Path | None:
        """None: no folder is known."""
        return None

    def quarantine(self, key: str) -> str:
        """Raise StoreRefused."""
        self._refuse()

    def close(self) -> None:
        """Nothing is open."""

    def _refuse(self) -> NoReturn:
        raise StoreRefused(self.name, f"its configuration is wrong: {self._problem}")
