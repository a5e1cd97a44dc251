"""Finds images by what they are, wherever they are in the tree.

To walk a tree of a million images takes a minute; an index finds the few that are asked for at
once.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from catalog.catalog import Catalog
from catalog.model.listings import ImageFilter
from catalog.model.tree import Entry, Folder, FolderKind
from catalog.repository.database import Repository

MOST = 10_000
"""Images that are found so: whoever lists more of them walks the tree as fast."""
_AT_ONCE = 500

_Place = tuple[tuple[int, ...], str]
"""The position of a folder in a walk, and its path."""


def search(
    catalog: Catalog, tops: Sequence[Folder], wanted: ImageFilter
) -> list[tuple[str, Entry]] | None:
    """The entries below each of `tops` that the filter lets through, with their paths.

    They come in the order in which a walk through the folders meets them; as it does, they leave
    the trash out unless it is one of `tops`.  None if there are more than `MOST`.
    """
    with catalog.read() as repository:
        numbers = repository.image_numbers(wanted, limit=MOST + 1)
        if len(numbers) > MOST:
            return None
        found = []
        above = _Above(catalog, repository, tops)
        for at in range(0, len(numbers), _AT_ONCE):
            for entry in repository.entries_of_images(numbers[at : at + _AT_ONCE]):
                place = above.place(entry.folder)
                if place is not None:
                    position, path = place
                    # Folders, whose numbers are positive, come before the entries beside them.
                    order = (*position, _AFTER_FOLDERS + entry.location.number)
                    found.append((order, f"{path}/{entry.name}", entry))
    found.sort(key=lambda each: each[0])
    return [(path, entry) for _, path, entry in found]


_AFTER_FOLDERS = 1 << 62


class _Above:
    """Where folders are, seen from some of them; each is looked up once."""

    def __init__(self, catalog: Catalog, repository: Repository, tops: Sequence[Folder]) -> None:
        self._catalog = catalog
        self._repository = repository
        self._places: dict[int, _Place | None] = {}
        for at, top in enumerate(tops):
            self._places[top.number] = ((at,), repository.path_of(top))

    def place(self, number: int) -> _Place | None:
        """The place of a folder; None if a walk from the tops does not lead there."""
        if number not in self._places:
            self._places[number] = self._below(self._repository.folder(number))
        return self._places[number]

    def _below(self, folder: Folder) -> _Place | None:
        is_gone = folder.kind is FolderKind.STORE and folder.name not in self._catalog.stores
        if is_gone or folder.kind not in (FolderKind.STORE, FolderKind.PLAIN):
            return None
        above = self.place(folder.parent)
        if above is None:
            return None
        position, path = above
        return (*position, folder.number), f"{path}/{folder.name}"
