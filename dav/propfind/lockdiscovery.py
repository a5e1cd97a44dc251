"""The `lockdiscovery` of many members at once (RFC 4918 §15.8).

The locks are read once for a whole answer: there are few locks and perhaps many members.
"""

from __future__ import annotations

from functools import cached_property
from urllib.parse import quote

from catalog.catalog import Catalog
from catalog.model.activity import Lock
from catalog.model.clock import now
from catalog.rules import locks


class Locks:
    """All locks of the tree, as they are when they are first needed."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @cached_property
    def _all(self) -> list[Lock]:
        return locks.at(self._catalog, "/", below=True)

    @property
    def any(self) -> bool:
        """Whether there is any lock."""
        return bool(self._all)

    def discovery(self, path: str) -> str:
        """The content of the property for the resource at `path`."""
        return "".join(_active(lock) for lock in self._all if lock.covers(path))


def _active(lock: Lock) -> str:
    left = max(int((lock.expires_at - now()).total_seconds()), 0)
    return (
        "<D:activelock><D:locktype><D:write/></D:locktype>"
        f"<D:lockscope><D:{lock.scope}/></D:lockscope>"
        f"<D:depth>{'infinity' if lock.deep else '0'}</D:depth>"
        f"{lock.owner_xml}"
        f"<D:timeout>Second-{left}</D:timeout>"
        f"<D:locktoken><D:href>{lock.token}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{quote(lock.path)}</D:href></D:lockroot>"
        "</D:activelock>"
    )
