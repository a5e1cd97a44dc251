"""A catalog in a PostgreSQL, and then in a MariaDB, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.settings import Settings
from tests.kit.catalog import settings_at
from tests.servers.databases import DatabaseServer


@pytest.fixture
def settings(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Settings]:
    """The usual stores, over a database of that server."""
    yield settings_at(tmp_path, url=database_server.database("catalog"))
    database_server.drop("catalog")
