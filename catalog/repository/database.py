"""The database: transactions, and the repository of each.

Threading: any thread; a transaction and its repository belong to one thread.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Connection, Engine

from catalog.errors import CatalogDamaged
from catalog.process import this_process
from catalog.repository.browse import BrowseRows
from catalog.repository.copies import CopyRows
from catalog.repository.engine import catalog_errors, open_engine, reserve_of
from catalog.repository.images import ImageRows
from catalog.repository.journal import JournalRows
from catalog.repository.locks import LockRows
from catalog.repository.people import PeopleRows
from catalog.repository.replacing import ReplacementRows
from catalog.repository.schema import check_schema, make_schema, schema_version
from catalog.repository.sqlite import WRITE, damages_of, turn_to_write
from catalog.repository.tree import TreeRows


class Repository(
    ImageRows, TreeRows, BrowseRows, CopyRows, JournalRows, PeopleRows, LockRows, ReplacementRows
):
    """All tables, over one connection with an open transaction."""

    def __init__(
        self,
        connection: Connection,
        origin: str,
        stores: Container[str] | None = None,
        *,
        keeps_locks: bool = True,
    ) -> None:
        """As `Rows`; without `keeps_locks` a lock ends when its entry or folder loses the name."""
        super().__init__(connection, origin, stores)
        self._keeps_locks = keeps_locks

    def left(self, folder: int, name: str) -> None:
        """End the locks on a name that an entry or folder has lost, and below it."""
        if not self._keeps_locks and self.has_locks():
            above = self.folders_above(self.folder(folder))
            self.drop_locks("/".join(("", *(each.name for each in reversed(above)), name)))


class Database:
    """One open database, which begins transactions."""

    def __init__(self, engine: Engine) -> None:
        """Use `Database.open` to get one."""
        self.engine = engine
        self.reserve = reserve_of(engine)

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Database:
        """Open the database at `url`.  Raises as `open_engine`."""
        return cls(open_engine(url, create=create))

    @contextmanager
    def read(self, stores: Container[str] | None = None) -> Iterator[Repository]:
        """A transaction that only reads: it has one consistent view, and waits for nobody."""
        with catalog_errors(self.engine), self.engine.connect() as connection:
            yield Repository(connection, "", stores)

    @contextmanager
    def write(
        self, stores: Container[str] | None = None, *, keeps_locks: bool = True
    ) -> Iterator[Repository]:
        """A transaction that writes: committed at the end, rolled back by an exception."""
        with (
            catalog_errors(self.engine),
            # The turn comes first, and the connection behind it: a thread that waits for its turn
            # holds no connection and no lock of SQLite, so that readers and the writer go on.
            turn_to_write(self.engine),
            self.engine.connect().execution_options(**WRITE) as connection,
            connection.begin(),
        ):
            origin = str(this_process())
            yield Repository(connection, origin, stores, keeps_locks=keeps_locks)

    def checkpoint(self) -> None:
        """Bring SQLite's main file up to date, as far as nobody has to wait for it.

        Until then new data is in the journal beside it, on a quiet host for hours, and a copy of
        only the main file would lack it.
        """
        if self.engine.dialect.name == "sqlite":
            with catalog_errors(self.engine), closing(self.engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def damages(self) -> list[str]:
        """What is wrong in the database as a whole, one line each; empty if nothing is known.

        SQLite reads its whole file for this.  A database server checks its data itself.  Raises
        CatalogUnavailable if it takes longer than `sqlite.CHECK_TIME`.
        """
        if self.engine.dialect.name != "sqlite":
            return []
        try:
            with catalog_errors(self.engine), self.engine.connect() as connection:
                return damages_of(connection.connection.driver_connection)
        except CatalogDamaged as error:
            return [error.reason]

    def has_schema(self) -> bool:
        """Whether the database has our tables."""
        return schema_version(self.engine) is not None

    def check_schema(self) -> None:
        """Bring an older schema up to date.  Raises NoCatalog, SchemaTooNew."""
        check_schema(self.engine)

    def make_schema(self) -> None:
        """Make the schema, or bring it up to date.  Raises SchemaTooNew."""
        make_schema(self.engine)

    def close(self) -> None:
        """Close every connection that nobody uses."""
        self.engine.dispose()
