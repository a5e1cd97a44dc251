"""All images or locations, fetched in pages, so that no transaction is open between two pages.

Rows that are added meanwhile are found, too, as numbers only grow.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from catalog.catalog import Catalog
from catalog.model.image import Image
from catalog.model.listings import ImageFilter
from catalog.model.tree import Location
from catalog.repository.database import Repository


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


_Row = TypeVar("_Row", bound=_Numbered)


def all_images(catalog: Catalog, wanted: ImageFilter) -> Iterator[Image]:
    """Every image the filter lets through, by number."""
    return _all(catalog, lambda repository, after: repository.images(wanted, after=after))


def all_locations(catalog: Catalog, store: str) -> Iterator[Location]:
    """Every location in a store, by number."""
    return _all(
        catalog, lambda repository, after: repository.locations_in_store(store, after=after)
    )


def _all(catalog: Catalog, fetch: Callable[[Repository, int], Sequence[_Row]]) -> Iterator[_Row]:
    after = 0
    while True:
        with catalog.read() as repository:
            page = fetch(repository, after)
        if not page:
            return
        yield from page
        after = page[-1].number
