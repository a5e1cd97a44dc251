"""The repository: every SQL statement of the catalog, and nothing but SQL.

Users: `catalog.catalog`, inside a transaction it began.  Values come out as the frozen
classes of `catalog.image` and `catalog.access`; no row and no SQLAlchemy object leaves.
Threading: one repository belongs to one transaction of one thread.
"""

from __future__ import annotations

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
