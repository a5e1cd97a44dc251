"""One screen of a folder, its digests, and the totals of stores.

A folder may have 100,000 images: the database sorts them, and only one page leaves it.

Totals are rows of their own, changed in the transaction that changes what they count: to count a
million images takes a second.  Each method that changes an image's row or its entries says so
before (`Rows.count_again`); at the end of the transaction the difference is added.  So one place
knows what is counted, and a transaction costs a few statements more, however often it changes an
image.  `fsck` counts anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from catalog.model.access import Principal, Role
from catalog.model.image import Visibility
from catalog.model.listings import FolderPage, ListedEntry, Sort, StoreTotals
from catalog.model.status import Status
from catalog.model.tree import Entry
from catalog.repository.people import listed_to, visible_to
from catalog.repository.rows import Rows, going_on
from catalog.repository.statements.totals import (
    ADD_COUNT,
    ADD_TOTALS,
    COUNTED,
    FIRST_COUNT,
    FIRST_TOTALS,
    IS_ENTRY,
    NOTHING,
    VALUES,
    Key,
    Totals,
    share,
    sums,
)
from catalog.repository.tables import image_counts, images, locations, members, properties, totals
from catalog.repository.tree import make_entry

_DISTRO = properties.alias("distro")
_VERSION = properties.alias("version")
_OS = ("os_distro", "os_version")
_OF_IMAGE = frozenset(Sort) - {Sort.NAME, Sort.OS, Sort.DELETED_AT}


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


class TotalRows(Rows):
    """Statements on `image_counts` and `totals`."""

    connection: Connection

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As `Rows`."""
        super().__init__(*arguments, **named)
        self._before: dict[int, list[Any]] = {}
        """Image -> what it counted for before this transaction; nothing if it is new."""
        self._forgotten = 0
        """Rows of deleted images that this transaction has dropped."""

    def count_again(self, image: int) -> None:
        """Called before an image's row or its entries change."""
        if image not in self._before:
            self._before[image] = COUNTED.rows(self.connection, image=image)

    def count_new(self, image: int) -> None:
        """Called when an image was added."""
        self._before[image] = []

    def count_forgotten(self, number: int) -> None:
        """Called when rows of deleted images were dropped that were not changed before."""
        self._forgotten += number

    def settle(self) -> None:
        """Add what the transaction has changed to the totals: its last statements."""
        statuses = Counter({str(Status.DELETED): -self._forgotten})
        changed: dict[Key, tuple[int, ...]] = {}
        for image, before in self._before.items():
            after = COUNTED.rows(self.connection, image=image)
            for rows, sign in ((before, -1), (after, 1)):
                for status in {row[0] for row in rows}:
                    statuses[status] += sign
                for status, owner, visibility, size, store in rows:
                    if store is not None:
                        key = store, owner, visibility
                        added = share(status, size)
                        old = changed.get(key, NOTHING)
                        changed[key] = tuple(n + sign * m for n, m in zip(old, added, strict=True))
        self._before.clear()
        self._forgotten = 0
        self._add(statuses, changed)

    def _add(self, statuses: Mapping[str, int], changed: Totals) -> None:
        for status, more in statuses.items():
            if more and not ADD_COUNT.change(self.connection, which=status, more=more):
                FIRST_COUNT.change(self.connection, status=status, images=more)
        for (store, owner, visibility), values in changed.items():
            if not any(values):
                continue
            named = dict(zip((column.name for column in VALUES), values, strict=True))
            more_named = {f"more_{name}": value for name, value in named.items()}
            if not ADD_TOTALS.change(
                self.connection,
                of_store=store,
                of_owner=owner,
                of_visibility=visibility,
                **more_named,
            ):
                FIRST_TOTALS.change(
                    self.connection, store=store, owner=owner, visibility=visibility, **named
                )

    # -- asking --------------------------------------------------------------------------

    def images_by_status(self) -> dict[str, int]:
        """The number of images of each status that has any."""
        rows = self.connection.execute(select(image_counts).where(image_counts.c.images != 0))
        return {str(status): int(count) for status, count in rows}

    def store_totals(self, principal: Principal) -> Mapping[str, StoreTotals]:
        """The totals of each store, by its name; a store without entries is missing.

        Only images that are listed to the principal count: otherwise the totals would show that
        there are others.
        """
        found: dict[str, tuple[int, ...]] = {}
        for store, *values in (*self._own_totals(principal), *self._shared_totals(principal)):
            old = found.get(store, NOTHING)
            found[store] = tuple(n + int(m) for n, m in zip(old, values, strict=True))
        return {store: StoreTotals(*values) for store, values in found.items() if any(values)}

    def _own_totals(self, principal: Principal) -> list[Any]:
        """Of all that is listed to the principal but what others share with it."""
        statement = select(totals.c.store, *map(func.sum, VALUES)).group_by(totals.c.store)
        if principal.is_admin:
            return list(self.connection.execute(statement))
        is_own = totals.c.owner.in_(sorted(principal.names))
        sees_trash = is_own if principal.role is Role.MEMBER else None
        trashed = 0 if sees_trash is None else case((sees_trash, totals.c.trashed), else_=0)
        public = totals.c.visibility.in_([Visibility.PUBLIC, Visibility.COMMUNITY])
        columns = (*VALUES[:3], trashed)
        return list(
            self.connection.execute(
                select(totals.c.store, *map(func.sum, columns))
                .where(or_(public, is_own))
                .group_by(totals.c.store)
            )
        )

    def _shared_totals(self, principal: Principal) -> list[Any]:
        """Of what others share with the principal: no more than it is a member of."""
        if principal.is_admin:
            return []
        names = sorted(principal.names)
        joined = select(members.c.image).where(members.c.member.in_(names))
        return list(
            self.connection.execute(
                select(locations.c.store, *sums())
                .join(images, IS_ENTRY)
                .where(
                    images.c.number.in_(joined),
                    images.c.visibility == Visibility.SHARED,
                    images.c.owner.not_in(names),
                    images.c.status != Status.PENDING_DELETE,
                )
                .group_by(locations.c.store)
            )
        )

    # -- counting anew ---------------------------------------------------------------------

    def miscounted(self) -> bool:
        """Whether a total is another than that of the rows, which are all counted."""
        return (self._counted_statuses(), self._counted_totals()) != (
            self.images_by_status(),
            self._recorded_totals(),
        )

    def recount(self) -> None:
        """Replace all totals by what is counted now."""
        self.connection.execute(image_counts.delete())
        self.connection.execute(totals.delete())
        self._add(self._counted_statuses(), self._counted_totals())

    def _counted_statuses(self) -> dict[str, int]:
        statement = select(images.c.status, func.count()).group_by(images.c.status)
        return {str(status): int(count) for status, count in self.connection.execute(statement)}

    def _counted_totals(self) -> dict[Key, tuple[int, ...]]:
        key = (locations.c.store, images.c.owner, images.c.visibility)
        return _by_key(
            self.connection.execute(select(*key, *sums()).join(images, IS_ENTRY).group_by(*key))
        )

    def _recorded_totals(self) -> dict[Key, tuple[int, ...]]:
        return _by_key(self.connection.execute(select(totals)))


def _by_key(rows: Any) -> dict[Key, tuple[int, ...]]:
    found = {
        (store, owner, visibility): tuple(map(int, values))
        for store, owner, visibility, *values in rows
    }
    return {key: values for key, values in found.items() if any(values)}


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
        case Sort.DELETED_AT:
            # The same time, in the trash's own index.
            return (locations.c.trashed_at, locations.c.name)
        case Sort.OS:
            return (_DISTRO.c.value, _VERSION.c.value, locations.c.name)
        case _:
            return (images.c[sort.value], locations.c.name)


def _with_property(statement: Select[Any], table: Any, name: str) -> Select[Any]:
    of_image = and_(table.c.image == locations.c.image, table.c.name == name)
    return statement.outerjoin(table, of_image)
