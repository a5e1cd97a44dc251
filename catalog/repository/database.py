"""The database: transactions, and the repository of each.

Threading: any thread; a transaction and its repository belong to one thread.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection, Table

from catalog.process import this_process
from catalog.repository.browse import BrowseRows, TotalRows
from catalog.repository.copies import CopyRows
from catalog.repository.engines.answering import patiently
from catalog.repository.engines.backend import WRITE, Backend
from catalog.repository.engines.opening import open_backend, reserve_of
from catalog.repository.hosts import HostRows
from catalog.repository.images import ImageRows
from catalog.repository.journal import JournalRows
from catalog.repository.locks import LockRows
from catalog.repository.people import PeopleRows
from catalog.repository.replacing import ReplacementRows
from catalog.repository.schema import check_schema, make_schema, schema_version
from catalog.repository.tree import TreeRows


class Repository(
    TotalRows,
    ImageRows,
    TreeRows,
    BrowseRows,
    CopyRows,
    JournalRows,
    HostRows,
    PeopleRows,
    LockRows,
    ReplacementRows,
):
    """All tables, over one connection with an open transaction."""

    def __init__(
        self,
        backend: Backend,
        connection: Connection,
        origin: str = "",
        stores: Container[str] | None = None,
        *,
        keeps_locks: bool = True,
    ) -> None:
        """As `Rows`; without `keeps_locks` a lock ends when its entry or folder loses the name."""
        super().__init__(connection, origin, stores)
        self.backend = backend
        self._keeps_locks = keeps_locks

    def counted(self, table: Table, number: int) -> None:
        """Let the numbers of new rows go on after a given one."""
        self.backend.count_beyond(self.connection, table, number)

    def left(self, folder: int, name: str) -> None:
        """End the locks on a name that an entry or folder has lost, and below it."""
        if not self._keeps_locks and self.has_locks():
            self.drop_locks(f"{self.path_of(self.folder(folder))}/{name}")


class Database:
    """One open database, which begins transactions."""

    def __init__(self, backend: Backend) -> None:
        """Use `Database.open` to get one."""
        self.backend = backend
        self.reserve = reserve_of(backend)

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Database:
        """Open the database at `url`.  Raises as `open_backend`."""
        return cls(open_backend(url, create=create))

    @contextmanager
    def read(self, stores: Container[str] | None = None) -> Iterator[Repository]:
        """A transaction that only reads: it has one consistent view, and waits for nobody."""
        with self.backend.errors(), self.backend.connect() as connection:
            yield Repository(self.backend, connection, stores=stores)
            # Psycopg forgets all statements that it has prepared at a ROLLBACK.
            if not connection.invalidated:
                connection.commit()

    @contextmanager
    def write(
        self,
        stores: Container[str] | None = None,
        *,
        keeps_locks: bool = True,
    ) -> Iterator[Repository]:
        """A transaction that writes: committed at the end, rolled back by an exception."""
        backend = self.backend
        with (
            backend.errors(),
            backend.turn_to_write(),
            backend.connect().execution_options(**WRITE) as connection,
            connection.begin(),
        ):
            backend.begin_write(connection)
            origin = str(this_process())
            repository = Repository(backend, connection, origin, stores, keeps_locks=keeps_locks)
            yield repository
            repository.settle()
            if repository.told:
                backend.announce(connection)

    def wait_for_change(self, seconds: float) -> None:
        """As `Backend.wait_for_change`."""
        self.backend.wait_for_change(seconds)

    def patiently(self, seconds: float) -> AbstractContextManager[None]:
        """Let transactions of this block wait so long for a server that is away."""
        return patiently(seconds)

    def checkpoint(self) -> None:
        """Bring the database's main file up to date, as far as nobody has to wait for it."""
        self.backend.checkpoint()

    def damages(self) -> list[str]:
        """What is wrong in the database as a whole, one line each; empty if nothing is known.

        A database server checks its data itself.
        """
        return self.backend.damages()

    def unfit(self) -> list[str]:
        """What in the settings of the database's server is unfit for a catalog, one line each."""
        with self.read() as repository:
            return self.backend.unfit(repository.connection)

    def has_schema(self) -> bool:
        """Whether the database has our tables."""
        return schema_version(self.backend) is not None

    def schema(self) -> str | None:
        """The schema's version; None if there are none of our tables."""
        return schema_version(self.backend)

    def check_schema(self) -> None:
        """As `schema.check_schema`."""
        check_schema(self.backend)

    def make_schema(self) -> None:
        """As `schema.make_schema`."""
        make_schema(self.backend)

    def close(self) -> None:
        """Close every connection that nobody uses."""
        self.backend.close()
