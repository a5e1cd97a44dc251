"""The catalog's database: opening it, its schema's version, its errors.

SQLite runs in WAL mode with foreign keys, and a writer begins with BEGIN IMMEDIATE and waits
its turn, so that no process ever sees "database is locked"; `synchronous=FULL`, because an
image that has been reported active must survive a power failure.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from catalog.errors import (
    CatalogDamaged,
    CatalogForbidden,
    CatalogFull,
    CatalogLocked,
    CatalogUnavailable,
    InvalidSettings,
    NoCatalog,
    SchemaTooNew,
)
from catalog.reserve import Reserve, room

SCHEMA = "0008"
"""The newest migration this program knows; a test holds it to `migrations/`."""

BUSY_TIMEOUT = 120
"""Seconds a SQLite writer waits for the others before it gives up."""

_AWAITED = threading.BoundedSemaphore(128)
"""Turns that are waited for at one time, given up ones included: each has a thread."""

CHECK_TIME = 120
"""Seconds that a check of the whole database may take."""

_DAMAGE = ("no such table", "no such column", "Could not decode", "malformed")
"""What SQLite says of a table that is not there any more, and of text that is none."""

_BESIDE = 1 << 16
"""Bytes: SQLite's shared memory and the head of its journal take less."""

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
            _check_no_journal(path)
        elif not path.exists():
            raise NoCatalog(str(path))
    except PermissionError as error:
        raise CatalogForbidden(str(path)) from error
    except OSError as error:
        raise CatalogUnavailable(str(path), error.strerror or str(error)) from error
    engine = create_engine(
        parsed, pool_size=8, max_overflow=-1, connect_args={"timeout": BUSY_TIMEOUT}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def kind_and_file(url: str) -> tuple[str, Path]:
    """Which kind of database a url names (`sqlite`, `postgresql`, …), and SQLite's file."""
    parsed = make_url(url)
    return parsed.get_backend_name(), Path(parsed.database or "")


def _check_no_journal(path: Path) -> None:
    """Make no database beside the journal of one that was lost: SQLite would empty that."""
    journal = Path(f"{path}-wal")
    if not path.exists() and journal.exists() and journal.stat().st_size:
        reason = f"is gone, and {journal} is still there: restore a backup, or move that away"
        raise CatalogUnavailable(str(path), reason)


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
    The kernel's queue on a file beside the database is fair (worst 0.3 s).  Raises
    CatalogLocked when the turn does not come: a process that is stopped keeps its own.
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
    except PermissionError as error:
        raise CatalogForbidden(path) from error
    except OSError as error:
        raise CatalogUnavailable(path, error.strerror or str(error)) from error
    try:
        if not (_take(fd) or _await(fd)):
            raise CatalogLocked(path)
        yield
    finally:
        os.close(fd)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await(fd: int) -> bool:
    """Whether the turn comes in time; flock(2) itself waits without a limit."""
    if not _AWAITED.acquire(timeout=BUSY_TIMEOUT):
        return False
    # The lock is of both descriptors: it goes when the last of them is closed.
    waiting, come = os.dup(fd), threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(waiting, fcntl.LOCK_EX)
            come.set()
        finally:
            os.close(waiting)
            _AWAITED.release()

    threading.Thread(target=wait, name="turn", daemon=True).start()
    return come.wait(BUSY_TIMEOUT)


@contextmanager
def catalog_errors(engine: Engine) -> Iterator[None]:
    """Turn the database's own exceptions into ours.

    Raises CatalogLocked, CatalogDamaged, CatalogUnavailable.
    """
    try:
        yield
    except DBAPIError as error:
        raise _ours(engine, error.orig or error) from error
    except sqlite3.Error as error:
        # What `_prepare_sqlite` meets in a new connection.
        raise _ours(engine, error) from error
    except UnicodeDecodeError as error:
        # Of text in the file, which SQLite repeats in what it says.
        where = engine.url.render_as_string(hide_password=True)
        raise CatalogDamaged(where, "it holds text that is none") from error
    except AssertionError as error:
        # What every transaction leaves true is not: rows are missing.
        where = engine.url.render_as_string(hide_password=True)
        raise CatalogDamaged(where, "its rows contradict each other") from error


def _ours(engine: Engine, error: BaseException) -> CatalogUnavailable:
    where, reason = engine.url.render_as_string(hide_password=True), str(error)
    if _is_damage(error):
        return CatalogDamaged(where, reason)
    if isinstance(error, sqlite3.OperationalError) and "locked" in reason:
        return CatalogLocked(where)
    if _is_full(engine, error):
        return CatalogFull(where)
    if _is_forbidden(engine, error):
        return CatalogForbidden(where)
    return CatalogUnavailable(where, reason)


def _is_full(engine: Engine, error: BaseException) -> bool:
    """Whether there was no room for the database, or for what SQLite puts beside it."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        with suppress(OSError):
            return room(Path(str(engine.url.database)).parent) < _BESIDE
    return code == sqlite3.SQLITE_FULL


def _is_forbidden(engine: Engine, error: BaseException) -> bool:
    """Whether SQLite could not open or write what it has to: journal and locks as well."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return False
    database = Path(str(engine.url.database))
    try:
        if os.statvfs(database.parent).f_flag & os.ST_RDONLY:
            return False
    except OSError as problem:
        return isinstance(problem, PermissionError)
    mode = os.R_OK | os.W_OK
    return not all(
        os.access(path, mode, effective_ids=True) for path in (database, database.parent)
    )


def reserve_of(engine: Engine) -> Reserve:
    """What is kept for deleting on a full disk."""
    is_file = engine.dialect.name == "sqlite" and engine.url.database
    return Reserve(Path(str(engine.url.database)) if is_file else None)


def _is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file is not what it was; a schema's row may be lost as well."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    known = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return known or str(error).startswith(_DAMAGE)


def damages(engine: Engine) -> list[str]:
    """What is wrong in the database as a whole, a line each; empty if nothing is known to be.

    SQLite reads all of its file for it.  A server checks its own.  Raises CatalogUnavailable
    when it took longer than `CHECK_TIME`.
    """
    if engine.dialect.name != "sqlite":
        return []
    try:
        with catalog_errors(engine), engine.connect() as connection:
            return damages_of(connection.connection.driver_connection)
    except CatalogDamaged as error:
        return [error.reason]


def damages_of(raw: Any) -> list[str]:
    """As `damages`, of an open connection of the module sqlite3.  Raises its errors."""
    give_up_at = time.monotonic() + CHECK_TIME
    raw.set_progress_handler(lambda: time.monotonic() > give_up_at, 100_000)
    # What it finds in the file is no text, and it quotes that.
    usual, raw.text_factory = raw.text_factory, lambda data: data.decode(errors="replace")
    try:
        found = [str(row[0]) for row in raw.execute("PRAGMA integrity_check(5)")]
        found += [
            f"a row of {table} refers to a row of {parent} that is not there"
            for table, _row, parent, _key in raw.execute("PRAGMA foreign_key_check")
        ][:5]
        (lost,) = raw.execute(_LOST_FOLDERS).fetchone()
    finally:
        raw.set_progress_handler(None, 0)
        raw.text_factory = usual
    if lost:
        found.append(f"{lost} folders are in no folder")
    return [line for line in found if line != "ok"]


_LOST_FOLDERS = """
WITH RECURSIVE reached(number) AS (
    SELECT number FROM folders WHERE kind = 'root'
    UNION SELECT folders.number FROM folders JOIN reached ON folders.parent = reached.number
)
SELECT (SELECT count(*) FROM folders) - (SELECT count(*) FROM reached)
"""
"""A parent that was changed to one of a folder's own makes a ring, which no path leads to."""


def checkpoint(engine: Engine) -> None:
    """Bring SQLite's main file up to date, as far as that makes nobody wait.

    What was written lies in the journal beside it until then, for hours on a quiet host: a
    plain copy of the main file would lack it.
    """
    if engine.dialect.name != "sqlite":
        return
    with catalog_errors(engine), closing(engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")


def schema_version(engine: Engine) -> str | None:
    """The migration the database is at; None for an empty database."""
    with catalog_errors(engine), engine.connect() as connection:
        return _version(connection)


def _version(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    version: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar()
    return version


def check_schema(engine: Engine) -> None:
    """Bring an older schema up to date; refuse one that is newer or not there.

    Raises NoCatalog, SchemaTooNew.
    """
    version = _first_look(engine)
    if version is None:
        raise NoCatalog(engine.url.render_as_string(hide_password=True))
    if version != SCHEMA:
        migrate(engine)


def make_schema(engine: Engine) -> None:
    """Make the schema, or bring it up to date.  Raises SchemaTooNew."""
    if schema_version(engine) != SCHEMA:
        migrate(engine)


def _first_look(engine: Engine) -> str | None:
    """As `schema_version`; SQLite needs some room even to begin, and on a full disk gets it."""
    reserve = reserve_of(engine)
    while True:
        try:
            return schema_version(engine)
        except CatalogFull:
            if not reserve.release():
                raise


def _check_not_newer(engine: Engine, version: str | None) -> None:
    """Raise SchemaTooNew for what a newer program has made."""
    if version is not None and version > SCHEMA:
        where = engine.url.render_as_string(hide_password=True)
        raise SchemaTooNew(where, f"schema {version} is newer than {SCHEMA}: upgrade imagefs")


def migrate(engine: Engine) -> None:
    """Make the schema, or bring it up to `SCHEMA`: by all steps, or by none.

    Raises SchemaTooNew.
    """
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
            # Begun here, because Alembic would commit each step: a catalog that one step fails on
            # would be of no version that anybody has.
            connection.begin(),
        ):
            _check_not_newer(engine, _version(connection))
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA)
    except SQLAlchemyError as error:
        raise CatalogUnavailable(engine.url.render_as_string(), str(error)) from error
