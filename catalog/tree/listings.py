"""A folder as people look at it: one screen of it, its digests, and what the stores hold.

Unlike `namespace`, which answers as a file system does, this sorts and filters, and it shows a
principal only images that it may see.  The database does the work: a folder may have 100,000
images.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from catalog.catalog import Catalog
from catalog.model.access import Principal
from catalog.model.listings import FolderPage, Sort, StoreTotals
from catalog.model.status import Status
from catalog.model.tree import Folder, FolderKind


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images of a folder are shown, and in which order."""

    sort: Sort
    descending: bool
    text: str
    """What a name has to contain, in any case; empty for all."""
    status: Status | None
    offset: int
    """How many images are left out at the beginning."""


def screen(
    catalog: Catalog,
    folder: Folder,
    wanted: Wanted,
    principal: Principal,
    *,
    most_folders: int,
    most_images: int,
) -> tuple[tuple[Folder, ...], FolderPage]:
    """The folders and the images of one screen, read in one transaction.

    Folders are on the first screen only, by name, and on none that shows images of one status.
    """
    with catalog.read() as repository:
        page = repository.folder_page(
            folder.number,
            principal,
            sort=wanted.sort,
            descending=wanted.descending,
            filter_text=wanted.text,
            status=wanted.status,
            offset=wanted.offset,
            limit=most_images,
        )
        if wanted.offset or wanted.status is not None:
            return (), page
        found = repository.folders_in(folder.number, limit=most_folders)
    text = wanted.text.casefold()
    folders = (child for child in found if child.kind is FolderKind.PLAIN)
    shown = (child for child in folders if text in child.name.casefold())
    return tuple(sorted(shown, key=lambda child: child.name)), page


def digests(
    catalog: Catalog, folder: Folder, principal: Principal, algo: str
) -> Iterator[list[tuple[str, str]]]:
    """The digests of a folder's active images, with their names, in pages.

    No transaction is open between two pages.
    """
    after = 0
    while True:
        with catalog.read() as repository:
            found = repository.folder_digests(folder.number, principal, algo, after=after)
        if not found:
            return
        yield [(value, name) for _cookie, value, name in found]
        after = found[-1][0]


def store_totals(catalog: Catalog, principal: Principal) -> Mapping[str, StoreTotals]:
    """Store name -> what it holds of what the principal may see; empty stores are left out."""
    with catalog.read() as repository:
        return repository.store_totals(principal)
