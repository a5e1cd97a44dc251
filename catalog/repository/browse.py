"""One screen of a folder, its digests, and the totals of stores.

A folder may have 100,000 images: the database sorts them, and only one page leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, select

from catalog.model.access import Principal
from catalog.model.listings import FolderPage, ListedEntry, Sort, StoreTotals
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Entry, FolderKind
from catalog.repository.people import listed_to, visible_to
from catalog.repository.rows import Rows, going_on
from catalog.repository.tables import folders, images, locations, properties
from catalog.repository.tree import make_entry

_DISTRO = properties.alias("distro")
_VERSION = properties.alias("version")
_OS = ("os_distro", "os_version")
_OF_IMAGE = frozenset(Sort) - {Sort.NAME, Sort.OS}


class BrowseRows(Rows):
    """Statements that read whole folders and stores."""

    def folder_page(
        self,
        folder: int,
        principal: Principal,
        *,
        sort: Sort = Sort.NAME,
        descending: bool = False,
        filter_text: str = "",
        status: Status | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> FolderPage:
        """The entries `[offset, offset + limit)` of a folder in the order of `sort`.

        Only entries that are listed to the principal count.  `filter_text` is a part of the
        name, in any case; `status` is the image's.
        """
        wanted = _conditions(folder, filter_text, status)
        if not principal.is_admin:
            wanted.append(listed_to(principal))
        # Names and numbers are in an index.  Images are joined only when they matter.
        of_image = status is not None or not principal.is_admin
        # Only numbers are sorted; whole rows are fetched for the page alone.
        statement = _from(select(locations.c.number), with_image=of_image or sort in _OF_IMAGE)
        if sort is Sort.OS:
            statement = _with_property(statement, _DISTRO, _OS[0])
            statement = _with_property(statement, _VERSION, _OS[1])
        order = [key.desc() if descending else key.asc() for key in _keys(sort)]
        page = statement.where(*wanted).order_by(*order).offset(offset).limit(limit)
        numbers = list(self.connection.execute(page).scalars())
        entries = self._entries(numbers)
        os = self._properties_of([entry.image.number for entry in entries], _OS)
        total = self.connection.execute(
            _from(select(func.count()), with_image=of_image).where(*wanted)
        ).scalar_one()
        return FolderPage(tuple(_listed(entry, os) for entry in entries), total)

    def _entries(self, numbers: list[int]) -> list[Entry]:
        """The entries with these location numbers, in the same order."""
        rows = self.connection.execute(
            select(images, locations)
            .join(locations, locations.c.image == images.c.number)
            .where(locations.c.number.in_(numbers))
        )
        found = {entry.location.number: entry for entry in map(make_entry, rows)}
        return [found[number] for number in numbers]

    def _properties_of(
        self, numbers: list[int], names: Iterable[str]
    ) -> Mapping[tuple[int, str], str]:
        rows = self.connection.execute(
            select(properties).where(
                properties.c.image.in_(numbers), properties.c.name.in_(list(names))
            )
        )
        return {(row.image, row.name): row.value for row in rows}

    def folder_digests(
        self, folder: int, principal: Principal, algo: str, *, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str, str]]:
        """Cookie, digest and name of the active images in a folder that have a digest by `algo`.

        Only images that the principal may see, up to `limit` behind the cookie `after`.
        """
        rows = self.connection.execute(
            select(locations.c.number, images.c.os_hash_value, locations.c.name)
            .join(images, images.c.number == locations.c.image)
            .where(
                locations.c.folder == folder,
                locations.c.number > after,
                images.c.status == Status.ACTIVE,
                images.c.os_hash_algo == algo,
                images.c.os_hash_value.is_not(None),
                visible_to(principal),
            )
            .order_by(locations.c.number)
            .limit(limit)
        )
        found = [(number, value, name) for number, value, name in rows]
        if found:
            going_on(after, found[-1][0])
        return found

    def store_totals(self, principal: Principal) -> Mapping[str, StoreTotals]:
        """The totals of each store, by its name; a store without entries is missing.

        Only images that are listed to the principal count: otherwise the totals would show that
        there are others.
        """
        trashed = folders.c.kind == FolderKind.TRASH
        rows = self.connection.execute(
            select(
                locations.c.store,
                _count(~trashed),
                _sum(images.c.size, ~trashed),
                _count(images.c.status.in_(sorted(IN_PROGRESS))),
                _count(trashed),
            )
            .join(images, images.c.number == locations.c.image)
            .join(folders, folders.c.number == locations.c.folder)
            .where(listed_to(principal))
            .group_by(locations.c.store)
        )
        return {store: StoreTotals(*map(int, numbers)) for store, *numbers in rows}


def _listed(entry: Entry, os: Mapping[tuple[int, str], str]) -> ListedEntry:
    distro, version = (os.get((entry.image.number, name)) for name in _OS)
    return ListedEntry(entry, distro, version)


def _conditions(folder: int, text: str, status: Status | None) -> list[ColumnElement[bool]]:
    conditions = [locations.c.folder == folder]
    if text:
        conditions.append(locations.c.name.icontains(text, autoescape=True))
    if status is not None:
        conditions.append(images.c.status == status)
    return conditions


def _from(statement: Select[Any], *, with_image: bool) -> Select[Any]:
    if with_image:
        return statement.select_from(
            locations.join(images, images.c.number == locations.c.image),
        )
    return statement.select_from(locations)


def _keys(sort: Sort) -> tuple[ColumnElement[Any], ...]:
    match sort:
        case Sort.NAME:
            # Names are unique in a folder and have an index: nothing has to be sorted.
            return (locations.c.name,)
        case Sort.OS:
            return (_DISTRO.c.value, _VERSION.c.value, locations.c.name)
        case _:
            return (images.c[sort.value], locations.c.name)


def _with_property(statement: Select[Any], table: Any, name: str) -> Select[Any]:
    of_image = and_(table.c.image == locations.c.image, table.c.name == name)
    return statement.outerjoin(table, of_image)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _sum(column: ColumnElement[int], condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, column), else_=0))
