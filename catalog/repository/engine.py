"""Opens a database, and turns its errors into errors of the catalog.

Threading: any thread; an engine has a pool of connections.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from catalog.errors import (
    CatalogDamaged,
    CatalogForbidden,
    CatalogFull,
    CatalogLocked,
    CatalogUnavailable,
    InvalidSettings,
    NoCatalog,
)
from catalog.repository import sqlite
from catalog.repository.reserve import Reserve


def open_engine(url: str, *, create: bool = False) -> Engine:
    """Return an engine for the database at `url`.

    Raises InvalidSettings for a bad url and, unless `create`, NoCatalog for a SQLite file that
    does not exist.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, pool_pre_ping=True)
    except (ArgumentError, ImportError) as error:
        raise InvalidSettings("catalog.url", f"is not a database url: {error}") from error
    path = Path(parsed.database or "")
    if not path.is_absolute():
        raise InvalidSettings("catalog.url", "needs an absolute path: sqlite:////var/lib/…")
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            sqlite.check_no_journal(path)
        elif not path.exists():
            raise NoCatalog(str(path))
    except PermissionError as error:
        raise CatalogForbidden(str(path)) from error
    except OSError as error:
        raise CatalogUnavailable(str(path), error.strerror or str(error)) from error
    engine = create_engine(
        parsed, pool_size=8, max_overflow=-1, connect_args={"timeout": sqlite.BUSY_TIMEOUT}
    )
    event.listen(engine, "connect", sqlite.prepare)
    event.listen(engine, "begin", sqlite.begin)
    return engine


def kind_and_file(url: str) -> tuple[str, Path]:
    """The kind of database in a url (`sqlite`, `postgresql`, …), and SQLite's file."""
    parsed = make_url(url)
    return parsed.get_backend_name(), Path(parsed.database or "")


@contextmanager
def catalog_errors(engine: Engine) -> Iterator[None]:
    """Turn exceptions of the database into errors of the catalog.

    Raises CatalogLocked, CatalogDamaged, CatalogUnavailable.
    """
    try:
        yield
    except DBAPIError as error:
        raise _ours(engine, error.orig or error) from error
    except sqlite3.Error as error:
        # From `sqlite.prepare`, which SQLAlchemy does not wrap.
        raise _ours(engine, error) from error
    except UnicodeDecodeError as error:
        # Damaged text in the file, which SQLite quotes in its error.
        where = engine.url.render_as_string(hide_password=True)
        raise CatalogDamaged(where, "it holds text that is none") from error
    except AssertionError as error:
        # A condition that every transaction leaves true is false: rows are missing.
        where = engine.url.render_as_string(hide_password=True)
        raise CatalogDamaged(where, "its rows contradict each other") from error


def _ours(engine: Engine, error: BaseException) -> CatalogUnavailable:
    where, reason = engine.url.render_as_string(hide_password=True), str(error)
    if sqlite.is_damage(error):
        return CatalogDamaged(where, reason)
    if isinstance(error, sqlite3.OperationalError) and "locked" in reason:
        return CatalogLocked(where)
    if sqlite.is_full(engine, error):
        return CatalogFull(where)
    if sqlite.is_forbidden(engine, error):
        return CatalogForbidden(where)
    return CatalogUnavailable(where, reason)


def reserve_of(engine: Engine) -> Reserve:
    """The room that is kept for deletions on a full disk."""
    is_file = engine.dialect.name == "sqlite" and engine.url.database
    return Reserve(Path(str(engine.url.database)) if is_file else None)
