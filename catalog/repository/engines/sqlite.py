"""Special to SQLite: how a connection begins, how writers wait, what its errors mean.

SQLite runs in WAL mode with foreign keys.  A writer waits for its turn and begins with BEGIN
IMMEDIATE, so that no process ever sees "database is locked".  `synchronous=FULL`, because an image
that was reported active must survive a power failure.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Table, create_engine, event, text

from catalog.errors import (
    CatalogDamaged,
    CatalogForbidden,
    CatalogFull,
    CatalogLocked,
    CatalogUnavailable,
    InvalidSettings,
    NoCatalog,
)
from catalog.repository.engines.backend import Backend, will_write
from catalog.repository.reserve import room

BUSY_TIMEOUT = 120
"""Seconds that a writer waits for other writers before it gives up."""


_AWAITED = threading.BoundedSemaphore(128)
"""Turns that are waited for at the same time, including those given up: each has a thread."""


CHECK_TIME = 120
"""Seconds that a check of the whole database may take."""


_DAMAGE = ("no such table", "no such column", "Could not decode", "malformed")
"""SQLite's errors begin so when a table is missing, or when text is no text."""


_BESIDE = 1 << 16
"""Bytes.  SQLite's shared memory and the head of its journal need less."""


def _check_no_journal(path: Path) -> None:
    """Raise CatalogUnavailable if the file is gone and its journal is not.

    SQLite would empty the journal when it makes a new file, and the last changes would be lost.
    """
    journal = Path(f"{path}-wal")
    if not path.exists() and journal.exists() and journal.stat().st_size:
        reason = f"is gone, and {journal} is still there: restore a backup, or move that away"
        raise CatalogUnavailable(str(path), reason)


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    """Set up a new connection."""
    # None: the module sqlite3 must not begin transactions by itself; `begin` does that.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-16384",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Begin a transaction; if the connection has the option `WRITE`, with SQLite's write lock."""
    if will_write(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        # SQLite does nothing yet, so nothing can fail.  This runs at every lookup, so it goes past
        # SQLAlchemy's slower way.
        connection.connection.cursor().execute("BEGIN")


@contextmanager
def _turn(database: Path) -> Iterator[None]:
    """Wait for a turn among SQLite's writers, and keep it inside the block.

    SQLite's own way to wait is not fair: under load one of 16 processes waited 17 s.  The
    kernel's queue on a file beside the database is (at most 0.3 s in the same test).  Raises
    CatalogLocked if the turn does not come in time: a stopped process keeps its turn.
    """
    path = f"{database}-queue"
    try:
        # A new descriptor for each turn: flock(2) is per open file, so that the threads of one
        # process wait for each other, too.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        if os.geteuid() == 0 and database.exists():
            # SQLite does the same with the files that it makes beside the database.
            owner = os.stat(database)
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
    """Wait for the turn in a thread; return whether it came in time.

    flock(2) has no time limit.
    """
    if not _AWAITED.acquire(timeout=BUSY_TIMEOUT):
        return False
    # Both descriptors share the lock, and it ends when the last of them is closed.  So a turn that
    # comes too late ends at once, as the caller has closed its own descriptor by then.
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


def _is_full(database: Path, error: BaseException) -> bool:
    """Whether there was no room for the database, or for the files beside it."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        with suppress(OSError):
            return room(database.parent) < _BESIDE
    return code == sqlite3.SQLITE_FULL


def _is_forbidden(database: Path, error: BaseException) -> bool:
    """Whether we may not open or write the database, or the files beside it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return False
    try:
        if os.statvfs(database.parent).f_flag & os.ST_RDONLY:
            return False
    except OSError as problem:
        return isinstance(problem, PermissionError)
    mode = os.R_OK | os.W_OK
    return not all(
        os.access(path, mode, effective_ids=True) for path in (database, database.parent)
    )


def _is_damage(error: BaseException) -> bool:
    """Whether SQLite reports that the file is damaged; also if a table of the schema is lost."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    known = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return known or str(error).startswith(_DAMAGE)


def damages_of(raw: Any) -> list[str]:
    """As `Sqlite.damages`, for an open connection of the module sqlite3.  Raises its errors."""
    give_up_at = time.monotonic() + CHECK_TIME
    raw.set_progress_handler(lambda: time.monotonic() > give_up_at, 100_000)
    # SQLite quotes damaged text of the file, which cannot be decoded strictly.
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
"""Counts folders that no path leads to: a damaged `parent` can make a ring of folders."""


class Sqlite(Backend):
    """A catalog in a file on this host."""

    file: Path

    def __init__(self, url: URL, *, create: bool) -> None:
        """Raise as `engine.open_backend`."""
        self.file = Path(url.database or "")
        _check_file(self.file, create=create)
        super().__init__(
            create_engine(
                url,
                pool_size=8,
                max_overflow=-1,
                # The most lately used one: the pages that it keeps in memory are still good.
                pool_use_lifo=True,
                connect_args={"timeout": BUSY_TIMEOUT},
            )
        )
        event.listen(self.engine, "connect", _prepare)
        event.listen(self.engine, "begin", _begin)

    def turn_to_write(self) -> AbstractContextManager[None]:
        # The turn comes first, and the connection behind it: a thread that waits for its turn
        # holds no connection and no lock of SQLite, so that readers and the writer go on.
        return _turn(self.file)

    def begin_write(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has taken the lock."""

    def begin_migration(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has taken the lock, and no statement has a deadline."""

    def count_beyond(self, connection: Connection, table: Table, number: int) -> None:
        values = {"table": table.name, "number": number}
        raised = "UPDATE sqlite_sequence SET seq = max(seq, :number) WHERE name = :table"
        if not connection.execute(text(raised), values).rowcount:
            made = "INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :number)"
            connection.execute(text(made), values)

    def last_number(self, connection: Connection, table: Table) -> int:
        last = "SELECT seq FROM sqlite_sequence WHERE name = :table"
        return connection.execute(text(last), {"table": table.name}).scalar() or 0

    def announce(self, connection: Connection) -> None:
        """Nobody can wait for it."""

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            with super().errors():
                yield
        except sqlite3.Error as error:
            # From `_prepare`, which SQLAlchemy does not wrap.
            raise self.meaning(error) from error

    def meaning(self, error: BaseException) -> CatalogUnavailable:
        reason = str(error)
        if _is_damage(error):
            return CatalogDamaged(self.where, reason)
        if isinstance(error, sqlite3.OperationalError) and "locked" in reason:
            return CatalogLocked(self.where)
        if _is_full(self.file, error):
            return CatalogFull(self.where)
        if _is_forbidden(self.file, error):
            return CatalogForbidden(self.where)
        return CatalogUnavailable(self.where, reason)

    def checkpoint(self) -> None:
        """Until then new data is in the journal beside the file, on a quiet host for hours."""
        with self.errors(), closing(self.engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def damages(self) -> list[str]:
        """As the contract; SQLite reads its whole file for this.

        Raises CatalogUnavailable if it takes longer than `CHECK_TIME`.
        """
        try:
            with self.errors(), self.engine.connect() as connection:
                return damages_of(connection.connection.driver_connection)
        except CatalogDamaged as error:
            return [error.reason]

    def clock(self, connection: Connection) -> datetime:
        """This host's own: all who use the file are here."""
        return datetime.now(UTC)


def _check_file(path: Path, *, create: bool) -> None:
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
