"""A catalog of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.tree.vfs import Vfs
from tests.kit.catalog import new_catalog, settings_at


@pytest.fixture
def vfs(tmp_path: Path):
    """A catalog with the stores file, other and memory."""
    catalog = new_catalog(settings_at(tmp_path))
    yield Vfs(catalog)
    catalog.close()
