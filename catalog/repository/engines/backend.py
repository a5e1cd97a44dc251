"""One open database of some kind: the contract that SQLite and the servers fulfil.

Threading: any thread; a connection belongs to the thread that has begun a transaction on it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from catalog.errors import CatalogDamaged, CatalogLocked, CatalogUnavailable, NotSupported

WRITE = {"imagefs_write": True}
"""Execution options of a connection whose transaction will write."""


def will_write(connection: Connection) -> bool:
    """Whether the connection has the options `WRITE`."""
    return bool(connection.get_execution_options().get("imagefs_write"))


class Backend(ABC):
    """One open database: its engine, and what is special to its kind."""

    file: Path | None = None
    """The database's file on this host; None for a server."""

    is_shared = False
    """Whether programs of other hosts, and of other versions, may be using it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def where(self) -> str:
        """The database's url without its password, for messages."""
        return self.engine.url.render_as_string(hide_password=True)

    # -- transactions ------------------------------------------------------------------

    def connect(self) -> Connection:
        """A connection.  Raises CatalogAway, CatalogLocked if all connections are in use."""
        return self.engine.connect()

    @abstractmethod
    def turn_to_write(self) -> AbstractContextManager[None]:
        """Wait for this process' or thread's turn to write, without holding a connection.

        The wait MUST be bounded.  Raises CatalogLocked.
        """

    @abstractmethod
    def begin_write(self, connection: Connection) -> None:
        """Take the catalog's write lock: from now on the transaction sees all that is committed.

        Called first in each transaction that writes.  There is one lock, because every rule reads
        before it writes, and because the numbers of the change feed must be committed in their
        order.  It MUST end with the transaction, and the wait MUST be bounded.
        """

    @abstractmethod
    def count_beyond(self, connection: Connection, table: Table, number: int) -> None:
        """Let the numbers that the database gives to new rows go on after `number`.

        MariaDB commits with it, unless a row has that number.
        """

    @abstractmethod
    def last_number(self, connection: Connection, table: Table) -> int:
        """The greatest number that was given to a row of the table, also to one that is gone."""

    # -- errors ------------------------------------------------------------------------

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn exceptions of the database into errors of the catalog.

        Raises CatalogLocked, CatalogDamaged, CatalogAway, CatalogFull, CatalogForbidden,
        CatalogUnavailable.
        """
        try:
            yield
        except DBAPIError as error:
            raise self.meaning(error.orig or error) from error
        except PoolTimeout as error:
            raise CatalogLocked(self.where, "all connections to it are in use") from error
        except UnicodeDecodeError as error:
            # Damaged text in the file, which SQLite quotes in its error.
            raise CatalogDamaged(self.where, "it holds text that is none") from error
        except AssertionError as error:
            # A condition that every transaction leaves true is false: rows are missing.
            raise CatalogDamaged(self.where, "its rows contradict each other") from error

    @abstractmethod
    def meaning(self, error: BaseException) -> CatalogUnavailable:
        """The catalog's error for an error of the driver."""

    # -- the change feed ---------------------------------------------------------------

    poll = 0.25
    """Seconds between two looks at the change feed; each is one indexed query."""

    @abstractmethod
    def announce(self, connection: Connection) -> None:
        """Wake who waits for a change, when the transaction is committed."""

    def wait_for_change(self, seconds: float) -> None:
        """Return when the change feed is to be looked at, after `seconds` at the latest.

        It may return without a change.  One thread at a time.
        """
        time.sleep(min(self.poll, seconds))

    # -- upkeep ------------------------------------------------------------------------

    @contextmanager
    def turn_to_migrate(self) -> Iterator[None]:
        """As `turn_to_write`, for a change of the schema, which may take long."""
        with self.turn_to_write():
            yield

    @abstractmethod
    def begin_migration(self, connection: Connection) -> None:
        """Begin a change of the schema: none of its statements has a deadline.

        What it has to wait for others is bounded all the same.  The connection ends with it.
        """

    def grants(self, user: str, rights: Mapping[str, Sequence[str]]) -> list[str]:
        """SQL that lets a user do just that: table -> `SELECT`, `INSERT` and so on.

        Raises NotSupported for SQLite, which has no users.
        """
        told = "SQLite has no users: who may open the file may do everything"
        raise NotSupported("grants", told)

    def unfit(self, connection: Connection) -> list[str]:
        """What in the server's settings is unfit for a catalog, one line each."""
        return []

    @abstractmethod
    def checkpoint(self) -> None:
        """Bring the main file up to date, as far as nobody has to wait for it.

        Tools that copy only this file would otherwise lack what is in the journal beside it.
        """

    def damages(self) -> list[str]:
        """What is wrong in the database as a whole, one line each; empty if nothing is known."""
        return []

    @abstractmethod
    def clock(self, connection: Connection) -> datetime:
        """The database's time, aware: the one clock that all hosts share."""

    def close(self) -> None:
        """Close every connection that nobody uses."""
        self.engine.dispose()
