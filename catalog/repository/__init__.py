"""The repository: every SQL statement of the catalog, and nothing but SQL.

Users: `catalog.catalog`, inside a transaction it began.  Values come out as the frozen
classes of `catalog.image`; no row and no SQLAlchemy object leaves.  Threading: one
repository belongs to one transaction of one thread.
"""

from __future__ import annotations

from catalog.repository.images import ImageRows
from catalog.repository.journal import JournalRows
from catalog.repository.tree import TreeRows


class Repository(ImageRows, TreeRows, JournalRows):
    """All tables, over one connection with a transaction open."""
