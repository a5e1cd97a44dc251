"""A catalog of its own for each test: SQLite, two folders and a memory store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.catalog import Catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import new_catalog, settings_at


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Stores `file` and `other` below tmp_path, and `memory`."""
    return settings_at(tmp_path)


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Catalog]:
    """A new catalog."""
    catalog = new_catalog(settings)
    yield catalog
    catalog.close()


@pytest.fixture
def vfs(catalog: Catalog) -> Vfs:
    """The tree of that catalog."""
    return Vfs(catalog)
