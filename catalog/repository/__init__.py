"""The repository: every SQL statement of the catalog, and nothing but SQL.

Values come out as the frozen classes of `catalog.image` and `catalog.access`; no row and no
SQLAlchemy object leaves.  Threading: one repository belongs to one transaction of one thread.
"""

from __future__ import annotations

from collections.abc import Container

from sqlalchemy import Connection

from catalog.repository.browse import BrowseRows
from catalog.repository.images import ImageRows
from catalog.repository.journal import JournalRows
from catalog.repository.locks import LockRows
from catalog.repository.people import PeopleRows
from catalog.repository.replacing import ReplacementRows
from catalog.repository.tree import TreeRows


class Repository(
    ImageRows, TreeRows, BrowseRows, JournalRows, PeopleRows, LockRows, ReplacementRows
):
    """All tables, over one connection with a transaction open."""

    def __init__(
        self,
        connection: Connection,
        origin: str,
        stores: Container[str] | None = None,
        *,
        keeps_locks: bool = True,
    ) -> None:
        """As `Rows`; without `keeps_locks` a lock goes with what it is on."""
        super().__init__(connection, origin, stores)
        self._keeps_locks = keeps_locks

    def left(self, folder: int, name: str) -> None:
        """End the locks on what has gone from a name, and below it."""
        if not self._keeps_locks and self.has_locks():
            above = self.folders_above(self.folder(folder))
            self.drop_locks("/".join(("", *(each.name for each in reversed(above)), name)))
