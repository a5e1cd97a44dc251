"""A PostgreSQL and a MariaDB for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.catalog import Catalog
from catalog.service.bootstrap import make_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import settings_at
from tests.servers.databases import STARTS, DatabaseServer, home


@pytest.fixture(scope="module", params=sorted(STARTS))
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A database server on loopback."""
    with home() as folder, STARTS[request.param](folder / "server") as started:
        yield started


@pytest.fixture
def settings(server: DatabaseServer, tmp_path: Path) -> Iterator[Settings]:
    """The usual stores, over a database of that server."""
    yield settings_at(tmp_path, url=server.database("catalog"))
    server.drop("catalog")


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Catalog]:
    """A new catalog."""
    made = make_catalog(settings)
    yield made
    made.close()


@pytest.fixture
def vfs(catalog: Catalog) -> Vfs:
    """The tree of that catalog."""
    return Vfs(catalog)
