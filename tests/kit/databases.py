"""Where the catalogs of the tests are: SQLite, or the server that IMAGEFS_TEST_DATABASE names.

The same tests run on all: `make test-databases`.  A test of what is SQLite's own is marked
`@pytest.mark.sqlite`.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from catalog.repository.database import Database
from tests.servers.databases import STARTS, DatabaseServer, home

KIND = os.environ.get("IMAGEFS_TEST_DATABASE", "sqlite")
"""`sqlite`, `postgresql` or `mariadb`."""

_EMPTY = "empty"


def url_at(path: Path) -> str:
    """The url of the database for a test's folder; always the same for the same folder."""
    if KIND == "sqlite":
        return f"sqlite:///{path / 'catalog.db'}"
    name = "t" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return shared().database(name, _template() if KIND == "postgresql" else None)


@cache
def shared() -> DatabaseServer:
    """The server of this process, which ends with it."""
    server = ExitStack()
    atexit.register(server.close)
    folder = server.enter_context(home())
    return server.enter_context(STARTS[KIND](folder / KIND))


@cache
def _template() -> str:
    """A database with the schema in it, of which copies are made in no time."""
    database = Database.open(shared().database(_EMPTY))
    database.make_schema()
    database.close()
    shared()._names.remove(_EMPTY)
    return _EMPTY
