"""Folders, and the locations that are their entries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    delete,
    func,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from catalog.errors import AlreadyExists, Conflict, NotFound
from catalog.model import names
from catalog.model.activity import ChangeKind, EventKind
from catalog.model.clock import now
from catalog.model.image import Visibility
from catalog.model.status import Status
from catalog.model.tree import Entry, Folder, FolderKind, Listed, Location, LocationState
from catalog.repository.images import make_image
from catalog.repository.rows import RowCheck, Rows, going_on
from catalog.repository.statements.prepared import Prepared
from catalog.repository.statements.tree import (
    ADD_LOCATION,
    ENTRIES_IN,
    ENTRIES_OF,
    ENTRY,
    ENTRY_AT,
    FOLDER,
    FOLDER_AT,
    FOLDERS_IN,
    LISTED,
    LISTED_IN,
    LOCATION,
    LOCATIONS_OF,
    NODE_AT,
    READ_FOLDER,
    SET_LOCATION,
    TOUCH_FOLDER,
)
from catalog.repository.tables import folders, images, locations

ROOT = 1
"""The number of the folder above all stores."""

_IMAGE_WIDTH = len(images.c)
_ENTRY_WIDTH = _IMAGE_WIDTH + len(locations.c)
_check_location = RowCheck(*locations.c)
_check_folder = RowCheck(*folders.c)


def _make_location(row: Any) -> Location:
    _check_location(row)
    number, image, store, url, state, folder, name, trashed_from, *_ = row
    if (folder is None) is not (name is None):
        raise ValueError(f"location {number} is called {name!r} in folder {folder}")
    return Location(number, image, store, url, LocationState(state), folder, name, trashed_from)


def make_entry(row: Any) -> Entry:
    """An Entry from a row with the columns of `images`, followed by those of `locations`."""
    return Entry(_make_location(row[_IMAGE_WIDTH:]), make_image(row))


# A look into a table costs a tenth of the call of an Enum.
_STATUSES = {str(status): status for status in Status}
_VISIBILITIES = {str(visibility): visibility for visibility in Visibility}


_check_listed = RowCheck(*LISTED)


def _make_listed(row: Any) -> Listed:
    _check_listed(row)
    fields = list(row)
    fields[4] = _STATUSES[fields[4]]
    fields[5] = _VISIBILITIES[fields[5]]
    fields[-1] = _STATUSES.get(fields[-1])
    return Listed._make(fields)


def _alike(name: str) -> str | None:
    """The value of the column `alike` for a name."""
    form = names.alike(name)
    return None if form == name else form


def make_folder(row: Any) -> Folder:
    """A Folder from a row with the columns of `folders`, in their order."""
    _check_folder(row)
    number, parent, store, name, kind, temporary, owner, created_at, updated_at, _alike = row
    return Folder(
        number, parent, store, name, FolderKind(kind), temporary, owner, created_at, updated_at
    )


class TreeRows(Rows):
    """Statements on `folders` and `locations`."""

    # -- folders ---------------------------------------------------------------------

    def folder(self, number: int) -> Folder:
        """The folder with that number.  Raises NotFound."""
        row = READ_FOLDER.row(self.connection, number=number)
        if row is None:
            raise NotFound(f"folder {number}")
        return make_folder(row)

    def folders_above(self, folder: Folder) -> list[Folder]:
        """The folder and all folders above it, without the root."""
        found: list[Folder] = []
        while folder.kind is not FolderKind.ROOT:
            if folder in found:
                raise ValueError(f"folder {folder.number} is inside itself")
            found.append(folder)
            folder = self.folder(folder.parent)
        return found

    def path_of(self, folder: Folder) -> str:
        """The absolute path of a folder; empty for the root."""
        return "".join(f"/{each.name}" for each in reversed(self.folders_above(folder)))

    def root(self) -> Folder | None:
        """The folder above all stores; None before `bootstrap` made it."""
        statement = FOLDER.where(folders.c.kind == FolderKind.ROOT)
        row = self.connection.execute(statement).one_or_none()
        return None if row is None else make_folder(row)

    def add_root(self) -> Folder:
        """Make the folder above all stores: number 1, its own parent."""
        at = now()
        self.connection.execute(
            folders.insert().values(
                number=ROOT,
                parent=ROOT,
                store="",
                name="",
                kind=FolderKind.ROOT,
                temporary=False,
                owner="root",
                created_at=at,
                updated_at=at,
            )
        )
        self.counted(folders, ROOT)
        return self.folder(ROOT)

    def folders_in(self, parent: int, *, after: int = 0, limit: int = 1000) -> list[Folder]:
        """Up to `limit` folders with a number above `after`, by number."""
        rows = FOLDERS_IN.rows(self.connection, parent=parent, after=after, limit=limit)
        found = [make_folder(row) for row in rows]
        if found:
            going_on(after, found[-1].number)
        return found

    def add_folder(
        self, parent: int, store: str, name: str, kind: FolderKind, owner: str, temporary: bool
    ) -> Folder:
        """Make a folder.  Raises AlreadyExists."""
        at = now()
        try:
            result = self.connection.execute(
                folders.insert().values(
                    parent=parent,
                    store=store,
                    name=name,
                    alike=_alike(name),
                    kind=kind,
                    temporary=temporary,
                    owner=owner,
                    created_at=at,
                    updated_at=at,
                )
            )
        except IntegrityError as error:
            raise AlreadyExists(name) from error
        key = result.inserted_primary_key
        assert key is not None
        self._touch_folder(parent, name)
        return self.folder(int(key[0]))

    def move_folder(self, folder: Folder, parent: int, name: str, temporary: bool) -> None:
        """Move a folder to another place in its store.  Raises AlreadyExists."""
        try:
            self.connection.execute(
                update(folders)
                .where(folders.c.number == folder.number)
                .values(
                    parent=parent,
                    name=name,
                    alike=_alike(name),
                    temporary=temporary,
                    updated_at=now(),
                )
            )
        except IntegrityError as error:
            raise AlreadyExists(name) from error
        self._leave(folder.parent, folder.name)
        self._touch_folder(parent, name)

    def drop_folder(self, folder: Folder) -> None:
        """Remove an empty folder."""
        self.connection.execute(delete(folders).where(folders.c.number == folder.number))
        self._leave(folder.parent, folder.name)

    def is_empty(self, folder: int) -> bool:
        """Whether the folder contains neither folders nor entries."""
        return not self.folders_in(folder, limit=1) and not self.entries_in(folder, limit=1)

    def _leave(self, folder: int, name: str, image: int | None = None) -> None:
        self._touch_folder(folder, name, image)
        self.left(folder, name)

    def _touch_folder(self, number: int, name: str, image: int | None = None) -> None:
        TOUCH_FOLDER.change(self.connection, which=number, updated_at=now())
        self.tell(ChangeKind.ENTRY, folder=number, name=name, image=image)

    # -- entries -----------------------------------------------------------------------

    def entries_in(self, folder: int, *, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Up to `limit` entries with a location number above `after`, by that number."""
        rows = ENTRIES_IN.rows(self.connection, folder=folder, after=after, limit=limit)
        found = [make_entry(row) for row in rows]
        if found:
            going_on(after, found[-1].cookie)
        return found

    def listed_in(self, folder: int, *, after: int = 0, limit: int = 1000) -> list[Listed]:
        """As `entries_in`, with only the columns that a listing shows."""
        rows = LISTED_IN.rows(self.connection, folder=folder, after=after, limit=limit)
        found = [_make_listed(row) for row in rows]
        if found:
            going_on(after, found[-1].cookie)
        return found

    def link_counts(self, numbers: Collection[int]) -> dict[int, int]:
        """The number of entries of each of these images that has more than one."""
        counted = func.count().label("links")
        statement = (
            select(locations.c.image, counted)
            .where(locations.c.image.in_(numbers), locations.c.folder.is_not(None))
            .group_by(locations.c.image)
            .having(counted > 1)
        )
        return {row.image: row.links for row in self.connection.execute(statement)}

    def entries_of(self, image: int) -> list[Entry]:
        """The image's entries, oldest first.

        Without locations that have no name, and without entries in stores that are not in the
        tree.
        """
        rows = ENTRIES_OF.rows(self.connection, image=image)
        entries = [make_entry(row) for row in rows]
        return [each for each in entries if self.stores is None or each.store in self.stores]

    def hide_location(self, location: Location) -> None:
        """Remove a location's name and keep its data: from now on it goes with its image."""
        self.count_again(location.image)
        self.connection.execute(
            update(locations)
            .where(locations.c.number == location.number)
            .values(folder=None, name=None, trashed_at=None)
        )
        if location.folder is not None and location.name is not None:
            self._touch_folder(location.folder, location.name, location.image)

    def move_entry(
        self, location: Location, folder: int, name: str, *, trashed_from: int | None = None
    ) -> None:
        """Give an entry another folder or name.  Raises AlreadyExists.

        It is in the trash if it has `trashed_from`, since when it was first moved there.
        """
        if location.folder is None:
            self.count_again(location.image)  # it becomes an entry
        values: dict[str, Any] = {"trashed_from": trashed_from}
        if trashed_from is None:
            values["trashed_at"] = None
        elif location.trashed_from is None:
            values["trashed_at"] = now()
        try:
            self.connection.execute(
                update(locations)
                .where(locations.c.number == location.number)
                .values(folder=folder, name=name, alike=_alike(name), **values)
            )
        except IntegrityError as error:
            raise AlreadyExists(name) from error
        if location.folder is not None and location.name is not None:
            self._leave(location.folder, location.name, location.image)
            # On its way to the trash the new status says it already.
            if trashed_from is None:
                old = (location.folder, location.name)
                self.record(EventKind.RENAMED, location.image, old=old, new=(folder, name))
        self._touch_folder(folder, name, location.image)

    # -- names ---------------------------------------------------------------------------

    def node_at(self, folder: int, name: str) -> Entry | Folder | None:
        """The entry or folder with that name or one that looks the same; None if there is none.

        An entry knows its `links`.
        """
        row = self._called_so(NODE_AT, folder, name)
        links, entry, folder_row = row[0], row[1 : 1 + _ENTRY_WIDTH], row[1 + _ENTRY_WIDTH :]
        if entry[0] is not None:
            return replace(make_entry(entry), links=links)
        return None if folder_row[0] is None else make_folder(folder_row)

    def entry_at(self, folder: int, name: str) -> Entry | None:
        """As `node_at`, only for an entry."""
        row = self._called_so(ENTRY_AT, folder, name)
        return None if row is None else make_entry(row)

    def folder_at(self, parent: int, name: str) -> Folder | None:
        """As `node_at`, only for a folder."""
        row = self._called_so(FOLDER_AT, parent, name)
        return None if row is None else make_folder(row)

    def _called_so(self, statement: Prepared, folder: int, name: str) -> Any:
        return statement.row(self.connection, folder=folder, name=name, form=names.alike(name))

    # -- locations ---------------------------------------------------------------------

    def locations_of(self, image: int) -> list[Location]:
        """All of the image's locations, oldest first."""
        rows = LOCATIONS_OF.rows(self.connection, image=image)
        return [_make_location(row) for row in rows]

    def stores_of(self, image: int) -> tuple[str, ...]:
        """The stores with a complete copy of the image, or with an entry of it, sorted."""
        return tuple(sorted(each.store for each in self.locations_of(image) if each.is_told))

    def locations_in_state(self, state: LocationState) -> list[Location]:
        """Every location in that state."""
        statement = LOCATION.where(locations.c.state == state)
        return [_make_location(row) for row in self.connection.execute(statement)]

    def locations_in_store(
        self, store: str, *, after: int = 0, limit: int = 1000
    ) -> list[Location]:
        """Up to `limit` locations of a store with a number above `after`, by number."""
        statement = (
            LOCATION.where(locations.c.store == store, locations.c.number > after)
            .order_by(locations.c.number)
            .limit(limit)
        )
        found = [_make_location(row) for row in self.connection.execute(statement)]
        if found:
            going_on(after, found[-1].number)
        return found

    def active_of(self, numbers: Collection[int]) -> set[int]:
        """Those of these images that have a complete copy."""
        statement = select(locations.c.image).where(
            locations.c.image.in_(numbers), locations.c.state == LocationState.ACTIVE
        )
        return set(self.connection.execute(statement).scalars())

    def ids_in_store(self, store: str, ids: Collection[str]) -> set[str]:
        """Those of these ids of images that have a copy in the store which is not pending."""
        statement = (
            select(images.c.id)
            .join(locations, locations.c.image == images.c.number)
            .where(
                images.c.id.in_(ids),
                locations.c.store == store,
                locations.c.state != LocationState.PENDING,
            )
        )
        return set(self.connection.execute(statement).scalars())

    def entries_of_images(self, numbers: Collection[int]) -> list[Entry]:
        """Every entry of several images, in no order; also in stores that are not in the tree."""
        rows = self.connection.execute(
            ENTRY.where(images.c.number.in_(numbers), locations.c.folder.is_not(None))
        )
        return [make_entry(row) for row in rows]

    def count_locations(self, store: str) -> int:
        """The number of a store's locations."""
        statement = select(func.count()).where(locations.c.store == store)
        return self.connection.execute(statement).scalar_one()

    def add_location(
        self,
        image: int,
        store: str,
        folder: int | None,
        name: str | None,
        *,
        url: str | None = None,
    ) -> Location:
        """Add a location: active when it comes with a url, else pending.

        With a folder and a name it is an entry.  Raises Conflict when the name has just
        been taken or the image has a copy in that store already.
        """
        state = LocationState.PENDING if url is None else LocationState.ACTIVE
        self.count_again(image)
        try:
            (number,) = ADD_LOCATION.row(
                self.connection,
                image=image,
                store=store,
                url=url,
                state=state,
                folder=folder,
                name=name,
                alike=_alike(name or ""),
            )
        except IntegrityError as error:
            raise Conflict(name or store, f"it has a copy in store {store} already") from error
        if folder is not None and name is not None:
            self._touch_folder(folder, name, image)
        return Location(int(number), image, store, url, state, folder, name, None)

    def set_location(self, number: int, state: LocationState, url: str | None) -> None:
        """Record the state of a location's data, and its url."""
        SET_LOCATION.change(self.connection, which=number, state=state, url=url)

    def detach_location(self, location: Location) -> None:
        """Take a location out of the tree.  Its data is removed next, and then its row."""
        self.count_again(location.image)
        self.connection.execute(
            update(locations)
            .where(locations.c.number == location.number)
            .values(
                state=LocationState.DELETING, folder=None, name=None, alike=None, trashed_at=None
            )
        )
        if location.folder is not None and location.name is not None:
            self._leave(location.folder, location.name, location.image)
        else:
            self.tell(ChangeKind.IMAGE, image=location.image)  # its `stores` have changed

    def drop_location(self, location: Location) -> None:
        """Remove a location's row, and with it its entry if it still has a name."""
        self.count_again(location.image)
        self.connection.execute(delete(locations).where(locations.c.number == location.number))
        if location.folder is not None and location.name is not None:
            self._leave(location.folder, location.name, location.image)
        elif location.state is not LocationState.PENDING:
            self.tell(ChangeKind.IMAGE, image=location.image)  # its `stores` have changed
        if location.state is not LocationState.PENDING:
            self.record(EventKind.DROPPED, location.image, store=location.store)
