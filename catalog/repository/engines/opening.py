"""Opens a database by its url.

Threading: any thread; an engine has a pool of connections.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from catalog.errors import InvalidSettings
from catalog.repository.engines.backend import Backend
from catalog.repository.engines.sqlite import Sqlite
from catalog.repository.reserve import Reserve

_EXTRAS = {"postgresql": "postgresql", "mysql": "mariadb", "mariadb": "mariadb"}
"""Kind of database -> the extra of our package that has its driver."""


def open_backend(url: str, *, create: bool = False) -> Backend:
    """Open the database at `url`; a server is asked only by the first transaction.

    Raises InvalidSettings for a bad url or a missing driver and, unless `create`, NoCatalog for a
    SQLite file that does not exist.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidSettings("catalog.url", f"is not a database url: {error}") from error
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return Sqlite(parsed, create=create)
    if kind not in _EXTRAS:
        allowed = "sqlite, postgresql, mariadb"
        raise InvalidSettings("catalog.url", f"{kind} is no kind of database: {allowed}")
    try:
        return _open_server(kind, parsed)
    except ImportError as error:
        told = f"needs a driver: pip install 'imagefs[{_EXTRAS[kind]}]' ({error})"
        raise InvalidSettings("catalog.url", told) from error


def _open_server(kind: str, url: URL) -> Backend:
    # Imported here: who uses SQLite needs neither of the drivers.
    if kind == "postgresql":
        from catalog.repository.engines.postgresql import Postgresql

        return Postgresql(url.set(drivername="postgresql+psycopg"))
    from catalog.repository.engines.mariadb import Mariadb

    return Mariadb(url.set(drivername="mariadb+pymysql"))


def kind_and_file(url: str) -> tuple[str, Path]:
    """The kind of database in a url (`sqlite`, `postgresql`, …), and SQLite's file."""
    parsed = make_url(url)
    return parsed.get_backend_name(), Path(parsed.database or "")


def reserve_of(backend: Backend) -> Reserve:
    """The room that is kept for deletions on a full disk."""
    return Reserve(backend.file)
