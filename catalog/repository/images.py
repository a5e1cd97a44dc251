"""Images, their properties, tags and chunk digests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    update,
)

from catalog.errors import InvalidTransition, NotFound
from catalog.model.activity import ChangeKind, EventKind
from catalog.model.clock import now
from catalog.model.digests import new_hash
from catalog.model.fields import Details
from catalog.model.image import ChunkDigests, Image, Visibility
from catalog.model.listings import ImageFilter
from catalog.model.status import Status, sources_of
from catalog.model.tree import LocationState
from catalog.repository.rows import RowCheck, Rows, going_on
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import chunk_digests, images, locations, properties, tags

_RECORDED = (
    "owner visibility disk_format container_format min_disk min_ram protected os_hidden"
    " os_hash_algo os_hash_value"
).split()
"""Columns whose new values go into the image's history; its names do so as renames."""
_KNOWN_THEN = ("message", "size", "os_hash_algo", "os_hash_value")
"""Columns that say more about a change of the status."""
_SHOWN = 200
"""Characters of a property's value in the history."""

_IMAGE = select(images)
_check_image = RowCheck(*images.c)
_BEFORE_DELETE = list(images.c).index(images.c.status_before_delete)
_BY_NUMBER = Prepared(_IMAGE.where(images.c.number == bindparam("number")))
_BY_ID = Prepared(_IMAGE.where(images.c.id == bindparam("id")))
_COUNTED = frozenset({"owner", "visibility", "size"})
"""Columns that the totals depend on, besides the status."""
_PROPERTIES = Prepared(
    select(properties.c.name, properties.c.value)
    .where(properties.c.image == bindparam("image"))
    .order_by(properties.c.name)
)
_TAGS = Prepared(select(tags.c.tag).where(tags.c.image == bindparam("image")).order_by(tags.c.tag))
_CHUNK_DIGESTS = Prepared(select(chunk_digests).where(chunk_digests.c.image == bindparam("image")))
_DROP_CHUNK_DIGESTS = Prepared(
    delete(chunk_digests).where(chunk_digests.c.image == bindparam("image"))
)
_ADD_CHUNK_DIGESTS = Prepared(
    chunk_digests.insert(), columns=("image", "algo", "chunk_size", "digests")
)


@cache
def _add_image(*columns: str) -> Prepared:
    """Inserts an image with these columns, and returns its number."""
    return Prepared(images.insert().returning(images.c.number), columns)


@cache
def _set_image(*columns: str) -> Prepared:
    """Sets these columns of the image with the number `which`."""
    return Prepared(update(images).where(images.c.number == bindparam("which")), columns)


@cache
def _change_status(sources: frozenset[Status], *columns: str) -> Prepared:
    """As `_set_image`, for an image with one of these statuses."""
    of_image = images.c.number == bindparam("which")
    is_source = or_(false(), *(images.c.status == status for status in sorted(sources)))
    return Prepared(update(images).where(of_image, is_source), columns)


def make_image(row: Any) -> Image:
    """An Image from a row that begins with the columns of `images`, in their order."""
    fields = list(row[: len(images.c)])
    _check_image(fields)
    fields[3] = Status(fields[3])
    fields[5] = Visibility(fields[5])
    if fields[_BEFORE_DELETE] is not None:
        fields[_BEFORE_DELETE] = Status(fields[_BEFORE_DELETE])
    return Image(*fields)


class ImageRows(Rows):
    """Statements on `images` and on the tables that belong to one image."""

    connection: Connection

    def image(self, number: int) -> Image:
        """The image with that number.  Raises NotFound."""
        row = _BY_NUMBER.row(self.connection, number=number)
        if row is None:
            raise NotFound(f"image {number}")
        return make_image(row)

    def has_image(self, number: int) -> bool:
        """Whether there is still a row of the image with that number."""
        row = _BY_NUMBER.row(self.connection, number=number)
        return row is not None

    def image_by_id(self, image_id: str) -> Image:
        """The image with that id.  Raises NotFound."""
        row = _BY_ID.row(self.connection, id=image_id)
        if row is None:
            raise NotFound(image_id)
        return make_image(row)

    def images_by_prefix(self, prefix: str, limit: int) -> list[Image]:
        """Up to `limit` images whose id begins with `prefix`."""
        # A range of the index on all databases, which LIKE is not.  An id is made of characters
        # that come before '~'.
        begins_so = (images.c.id >= prefix, images.c.id <= prefix + "~")
        rows = self.connection.execute(_IMAGE.where(*begins_so).order_by(images.c.id).limit(limit))
        return [make_image(row) for row in rows]

    def images(self, wanted: ImageFilter, *, after: int = 0, limit: int = 1000) -> list[Image]:
        """Up to `limit` images with a number above `after`, by number."""
        statement = _filtered(_IMAGE, wanted).where(images.c.number > after)
        rows = self.connection.execute(statement.order_by(images.c.number).limit(limit))
        found = [make_image(row) for row in rows]
        if found:
            going_on(after, found[-1].number)
        return found

    def image_numbers(self, wanted: ImageFilter, *, limit: int | None = None) -> list[int]:
        """The numbers of up to `limit` images that the filter lets through, in no order."""
        statement = _filtered(select(images.c.number), wanted).limit(limit)
        return list(self.connection.execute(statement).scalars())

    def count_images(self, wanted: ImageFilter) -> int:
        """The number of images that the filter lets through."""
        statement = _filtered(select(func.count()).select_from(images), wanted)
        return int(self.connection.execute(statement).scalar_one())

    def add_image(self, **columns: Any) -> int:
        """Insert an image and return its number."""
        (number,) = _add_image(*columns).row(self.connection, **columns)
        named = {"image_id": columns["id"], "name": columns["name"]}
        self.record(EventKind.CREATED, int(number), **named)
        self.count_new(int(number))
        return int(number)

    def set_image(self, number: int, **columns: Any) -> None:
        """Change columns other than the status, and add the image to the change feed."""
        columns.setdefault("updated_at", now())
        if not _COUNTED.isdisjoint(columns):
            self.count_again(number)
        _set_image(*columns).change(self.connection, which=number, **columns)
        self.tell(ChangeKind.IMAGE, image=number)
        if changed := {name: columns[name] for name in _RECORDED if name in columns}:
            self.record(EventKind.CHANGED, number, **changed)

    def change_status(
        self,
        number: int,
        wanted: Status,
        *,
        only_from: Iterable[Status] | None = None,
        **columns: Any,
    ) -> None:
        """Compare-and-set the status, with other columns in the same statement.

        `only_from` narrows the sources of the status machine.  Raises NotFound;
        InvalidTransition when the image's status may not become `wanted`.
        """
        sources = sources_of(wanted)
        if only_from is not None:
            sources &= frozenset(only_from)
        columns.setdefault("updated_at", now())
        self.count_again(number)
        # The condition is part of the UPDATE: of two that race for a change, the second one
        # changes no row and gets InvalidTransition.
        statement = _change_status(sources, "status", *columns)
        if not statement.change(self.connection, which=number, status=wanted, **columns):
            image = self.image(number)
            raise InvalidTransition(image.name, image.status, wanted)
        self.tell(ChangeKind.IMAGE, image=number)
        known = {name: columns[name] for name in _KNOWN_THEN if columns.get(name)}
        # Soon nothing but its history has the id of a deleted image.
        image_id = self.image(number).id if wanted is Status.DELETED else None
        self.record(EventKind.STATUS, number, image_id=image_id, status=wanted, **known)

    def accept(self, number: int, gate: int) -> None:
        """Note which format gate has accepted the data.

        For users the image is unchanged, so it is not added to the change feed.
        """
        self.connection.execute(update(images).where(images.c.number == number).values(gate=gate))

    def forget_deleted(self, before: datetime) -> None:
        """Drop the rows of images that were deleted before that time, and all that belongs to them.

        An image that still has a location stays: its data is not removed yet.
        """
        dropped = self.connection.execute(
            delete(images).where(
                images.c.status == Status.DELETED,
                images.c.updated_at < before,
                ~exists().where(locations.c.image == images.c.number),
            )
        )
        self.count_forgotten(dropped.rowcount)

    # -- properties and tags ------------------------------------------------------

    def properties(self, number: int) -> dict[str, str]:
        """The image's custom properties, by name."""
        return dict(_PROPERTIES.rows(self.connection, image=number))

    def set_properties(self, number: int, values: Mapping[str, str | None]) -> None:
        """Set custom properties; None removes one."""
        self.connection.execute(
            delete(properties).where(
                properties.c.image == number, properties.c.name.in_(list(values))
            )
        )
        rows = [
            {"image": number, "name": name, "value": value}
            for name, value in values.items()
            if value is not None
        ]
        if rows:
            self.connection.execute(properties.insert(), rows)
        self.set_image(number)
        told = {f"property.{name}": value and value[:_SHOWN] for name, value in values.items()}
        self.record(EventKind.CHANGED, number, **told)

    def tags(self, number: int) -> tuple[str, ...]:
        """The image's tags, sorted."""
        return tuple([tag for (tag,) in _TAGS.rows(self.connection, image=number)])

    def set_tags(self, number: int, wanted: Iterable[str]) -> None:
        """Replace the image's tags."""
        self.connection.execute(delete(tags).where(tags.c.image == number))
        rows = [{"image": number, "tag": tag} for tag in sorted(set(wanted))]
        if rows:
            self.connection.execute(tags.insert(), rows)
        self.set_image(number)
        self.record(EventKind.CHANGED, number, tags=[row["tag"] for row in rows])

    def properties_of(self, numbers: Collection[int]) -> dict[int, dict[str, str]]:
        """The custom properties of those images that have any; one statement."""
        if len(numbers) == 1:  # as for each request about one image
            (number,) = numbers
            of_one = self.properties(number)
            return {number: of_one} if of_one else {}
        statement = (
            select(properties).where(properties.c.image.in_(numbers)).order_by(properties.c.name)
        )
        found: dict[int, dict[str, str]] = {}
        for image, name, value in self.connection.execute(statement):
            found.setdefault(image, {})[name] = value
        return found

    def details_of(self, numbers: Collection[int]) -> dict[int, Details]:
        """The details of several images, by four statements."""
        custom = self.properties_of(numbers)
        found_tags = self._gather(tags.c.image, tags.c.tag, numbers)
        # The same condition as `Location.is_told`.
        is_told = or_(locations.c.folder.is_not(None), locations.c.state == LocationState.ACTIVE)
        stores = self._gather(locations.c.image, locations.c.store, numbers, is_told)
        return {
            row.number: Details(
                make_image(row),
                custom.get(row.number, {}),
                found_tags.get(row.number, ()),
                stores.get(row.number, ()),
            )
            for row in self.connection.execute(_IMAGE.where(images.c.number.in_(numbers)))
        }

    def _gather(
        self,
        image: Column[Any],
        value: Column[Any],
        numbers: Collection[int],
        condition: ColumnElement[bool] | None = None,
    ) -> dict[int, tuple[str, ...]]:
        """A column's values for each image, sorted."""
        found: dict[int, tuple[str, ...]] = {}
        statement = select(image, value).where(image.in_(numbers)).order_by(value)
        if condition is not None:
            statement = statement.where(condition)
        for number, each in self.connection.execute(statement):
            found[number] = (*found.get(number, ()), each)
        return found

    # -- digests -------------------------------------------------------------------

    def chunk_digests(self, number: int) -> ChunkDigests | None:
        """The digests of all chunks; None if none are recorded."""
        row = _CHUNK_DIGESTS.row(self.connection, image=number)
        if row is None:
            return None
        _image, algo, chunk_size, data = row
        width = new_hash(algo).digest_size
        parts = tuple(data[at : at + width] for at in range(0, len(data), width))
        return ChunkDigests(algo, chunk_size, parts)

    def set_chunk_digests(self, number: int, chunks: ChunkDigests) -> None:
        """Record the digests of all chunks; they replace older ones."""
        _DROP_CHUNK_DIGESTS.change(self.connection, image=number)
        _ADD_CHUNK_DIGESTS.change(
            self.connection,
            image=number,
            algo=chunks.algo,
            chunk_size=chunks.chunk_size,
            digests=b"".join(chunks.digests),
        )


def _filtered(statement: Select[Any], wanted: ImageFilter) -> Select[Any]:
    if wanted.statuses is not None:
        statement = statement.where(images.c.status.in_(sorted(wanted.statuses)))
    if wanted.before is not None:
        statement = statement.where(images.c.deleted_at < wanted.before)
    if wanted.not_accepted_by is not None:
        accepted = images.c.gate >= wanted.not_accepted_by
        statement = statement.where(or_(images.c.gate.is_(None), ~accepted))
    if wanted.store is not None:
        statement = statement.where(
            exists().where(locations.c.image == images.c.number, locations.c.store == wanted.store)
        )
    # Not EXISTS, which SQLite would ask for each image: the plan begins at the filter.
    for name, value in wanted.properties:
        statement = statement.where(
            images.c.number.in_(
                select(properties.c.image).where(
                    properties.c.name == name, properties.c.value == value
                )
            )
        )
    for tag in wanted.tags:
        statement = statement.where(
            images.c.number.in_(select(tags.c.image).where(tags.c.tag == tag))
        )
    return statement
