"""Statements on folders and locations, for `catalog.repository.tree`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    ScalarSelect,
    Select,
    Table,
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from catalog.model.tree import FolderKind
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import folders, images, locations

ENTRY = select(images, locations).join(locations, locations.c.image == images.c.number)
"""Rows for `make_entry`."""
LOCATION = select(locations)
FOLDER = select(folders)
LISTED = (
    locations.c.number,
    locations.c.name,
    images.c.number,
    images.c.id,
    images.c.status,
    images.c.visibility,
    images.c.owner,
    images.c.disk_format,
    images.c.size,
    images.c.os_hash_algo,
    images.c.os_hash_value,
    images.c.checksum,
    images.c.mtime,
    images.c.created_at,
    images.c.updated_at,
    images.c.status_before_delete,
)


def _paged(statement: Select[Any]) -> Prepared:
    """A page of a folder's locations."""
    inside = locations.c.folder == bindparam("folder")
    return Prepared(
        statement.where(inside, locations.c.number > bindparam("after"))
        .order_by(locations.c.number)
        .limit(bindparam("limit"))
    )


ENTRIES_IN = _paged(ENTRY)
LISTED_IN = _paged(select(*LISTED).join(images, locations.c.image == images.c.number))
ENTRIES_OF = Prepared(
    ENTRY.where(images.c.number == bindparam("image"), locations.c.folder.is_not(None)).order_by(
        locations.c.number
    )
)
LOCATIONS_OF = Prepared(
    LOCATION.where(locations.c.image == bindparam("image")).order_by(locations.c.number)
)
READ_FOLDER = Prepared(FOLDER.where(folders.c.number == bindparam("number")))
FOLDERS_IN = Prepared(
    FOLDER.where(
        folders.c.parent == bindparam("parent"),
        folders.c.number > bindparam("after"),
        folders.c.kind != FolderKind.ROOT,
    )
    .order_by(folders.c.number)
    .limit(bindparam("limit"))
)


def _called(table: Table, above: Column[Any]) -> Any:
    """The number of the row in `folder` with the name `name`, or with one that looks the same.

    The very name is found first, then its normal form, then one of the same normal form.  An older
    version allowed several of these: then the oldest is found.
    """
    inner = table.alias()
    inside = inner.c[above.name] == bindparam("folder")

    def exact(name: str) -> ScalarSelect[Any]:
        found = select(inner.c.number).where(inside, inner.c.name == bindparam(name))
        return found.scalar_subquery()

    # The smallest number is the oldest.
    alike = select(func.min(inner.c.number)).where(inside, inner.c.alike == bindparam("form"))
    return func.coalesce(exact("name"), exact("form"), alike.scalar_subquery())


_ENTRY_CALLED = locations.c.number == _called(locations, locations.c.folder)
_FOLDER_CALLED = folders.c.number == _called(folders, folders.c.parent)
ENTRY_AT = Prepared(ENTRY.where(_ENTRY_CALLED))
FOLDER_AT = Prepared(FOLDER.where(_FOLDER_CALLED))
_ONE = select(literal_column("1").label("one")).subquery()
_OTHER = locations.alias()
_LINKS = (
    select(func.count())
    .select_from(_OTHER)
    .where(_OTHER.c.image == images.c.number, _OTHER.c.folder.is_not(None))
    .correlate(images)
    .scalar_subquery()
)
NODE_AT = Prepared(
    select(_LINKS, images, locations, folders).select_from(
        _ONE.outerjoin(locations, _ENTRY_CALLED)
        .outerjoin(images, images.c.number == locations.c.image)
        .outerjoin(folders, _FOLDER_CALLED)
    )
)
"""One row in any case: how many entries the image has, the entry and the folder with the name, or
nulls in their places."""
TOUCH_FOLDER = Prepared(
    update(folders).where(folders.c.number == bindparam("which")), columns=("updated_at",)
)
ADD_LOCATION = Prepared(
    locations.insert().returning(locations.c.number),
    columns=("image", "store", "url", "state", "folder", "name", "alike"),
)
SET_LOCATION = Prepared(
    update(locations).where(locations.c.number == bindparam("which")), columns=("state", "url")
)
