"""The catalog's database: opening it, its schema's version, its errors.

Users: `catalog.catalog`, which alone begins transactions.  SQLite runs in WAL mode with
foreign keys, and a writer begins with BEGIN IMMEDIATE and waits its turn, so that no
process ever sees "database is locked"; `synchronous=FULL`, because an image that has
been reported active must survive a power failure.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, SQLAlchemyError

from catalog.errors import (
    CatalogLocked,
    CatalogUnavailable,
    InvalidSettings,
    NoCatalog,
    SchemaTooNew,
)

SCHEMA = "0003"
"""The newest migration this program knows; a test holds it to `migrations/`."""

BUSY_TIMEOUT = 120
"""Seconds a SQLite writer waits for the others before it gives up."""

WRITE = {"imagefs_write": True}
"""Execution options of a connection whose transaction will write."""


def open_engine(url: str, *, create: bool = False) -> Engine:
    """Return an engine for the database at `url`.

    Raises InvalidSettings for a bad url and NoCatalog for a SQLite file that is not
    there, unless `create`.
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
        elif not path.exists():
            raise NoCatalog(str(path))
    except OSError as error:
        raise CatalogUnavailable(str(path), error.strerror or str(error)) from error
    engine = create_engine(
        parsed, pool_size=8, max_overflow=-1, connect_args={"timeout": BUSY_TIMEOUT}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # None: sqlite3 must not begin transactions by itself; _begin_sqlite does.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-16384",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("imagefs_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        # SQLite does nothing yet, so nothing can fail: the quick way, at every lookup.
        connection.connection.cursor().execute("BEGIN")


@contextmanager
def turn_to_write(engine: Engine) -> Iterator[None]:
    """Wait for this process' turn among SQLite's writers, and hold it.

    SQLite's own waiting is a lottery: under load it let one of 16 processes wait 17 s.
    The kernel's queue on a file beside the database is fair (worst 0.3 s).
    """
    if engine.dialect.name != "sqlite":
        yield
        return
    path = f"{engine.url.database}-queue"
    try:
        # A descriptor of its own for each turn: threads of one process queue as well.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        if os.geteuid() == 0 and os.path.exists(str(engine.url.database)):
            # As SQLite does with the files it puts beside the database.
            owner = os.stat(str(engine.url.database))
            os.fchown(fd, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise CatalogUnavailable(path, error.strerror or str(error)) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def catalog_errors(engine: Engine) -> Iterator[None]:
    """Turn the database's own exceptions into ours (CatalogLocked, CatalogUnavailable)."""
    try:
        yield
    except OperationalError as error:
        where = engine.url.render_as_string(hide_password=True)
        if "locked" in str(error.orig):
            raise CatalogLocked(where) from error
        raise CatalogUnavailable(where, str(error.orig)) from error
    except DatabaseError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise CatalogUnavailable(where, str(error.orig)) from error


def schema_version(engine: Engine) -> str | None:
    """The migration the database is at; None for an empty database."""
    with catalog_errors(engine), engine.connect() as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return None
        version: str | None = connection.execute(
            text("SELECT version_num FROM alembic_version")
        ).scalar()
        return version


def check_schema(engine: Engine) -> None:
    """Bring an older schema up to date; refuse one that is newer or not there.

    Raises NoCatalog, SchemaTooNew.
    """
    version = schema_version(engine)
    if version == SCHEMA:
        return
    where = engine.url.render_as_string(hide_password=True)
    if version is None:
        raise NoCatalog(where)
    if version > SCHEMA:
        raise SchemaTooNew(where, f"schema {version} is newer than {SCHEMA}: upgrade imagefs")
    migrate(engine)


def migrate(engine: Engine) -> None:
    """Make the schema, or bring it up to `SCHEMA`."""
    # Imported here: Alembic takes longer to load than most commands take to run.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "catalog:migrations")
    try:
        with (
            catalog_errors(engine),
            turn_to_write(engine),
            engine.connect().execution_options(**WRITE) as connection,
        ):
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA)
            connection.commit()
    except SQLAlchemyError as error:
        raise CatalogUnavailable(engine.url.render_as_string(), str(error)) from error
