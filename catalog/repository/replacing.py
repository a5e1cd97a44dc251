"""Which image takes the place of which, and which one is spared because that failed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, exists, or_, select, update

from catalog.model.activity import ChangeKind
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Entry
from catalog.repository.rows import Rows
from catalog.repository.tables import images, locations, replacements, spared, uploads
from catalog.repository.tree import make_entry

_UNFINISHED = sorted({*IN_PROGRESS, Status.QUEUED})


class ReplacementRows(Rows):
    """Statements on `replacements` and `spared`."""

    def set_replaced(self, image: int, replaced: int) -> None:
        """Note that `image` takes the place of `replaced`, or is to."""
        self.connection.execute(delete(replacements).where(replacements.c.image == image))
        self.connection.execute(replacements.insert().values(image=image, replaced=replaced))

    def replaced(self, image: int) -> int | None:
        """The image whose place `image` takes, or is to take; None for none."""
        statement = select(replacements.c.replaced).where(replacements.c.image == image)
        return self.connection.execute(statement).scalar_one_or_none()

    def follow(self, old: int, new: int) -> None:
        """Have what is unfinished and was to replace `old` replace `new`."""
        unfinished = select(images.c.number).where(images.c.status.in_(_UNFINISHED))
        self.connection.execute(
            update(replacements)
            .where(
                replacements.c.replaced == old,
                replacements.c.image != new,
                replacements.c.image.in_(unfinished),
            )
            .values(replaced=new)
        )

    def is_being_replaced(self, image: int, since: datetime) -> bool:
        """Whether an upload that is to take its place has shown life since that time."""
        statement = (
            select(replacements.c.image)
            .join(images, images.c.number == replacements.c.image)
            .outerjoin(uploads, uploads.c.image == images.c.number)
            .where(
                replacements.c.replaced == image,
                images.c.status.in_(_UNFINISHED),
                or_(images.c.updated_at > since, uploads.c.heartbeat_at > since),
            )
        )
        return self.connection.execute(statement.limit(1)).first() is not None

    def is_needed(self, image: int) -> bool:
        """Whether something unfinished is to take its place, or has, and may still fail."""
        statement = (
            select(replacements.c.image)
            .join(images, images.c.number == replacements.c.image)
            .where(replacements.c.replaced == image, images.c.status.in_(_UNFINISHED))
        )
        return self.connection.execute(statement.limit(1)).first() is not None

    def never_written(self, since: datetime) -> list[int]:
        """Queued images, as old as that, that are to take the place of what was deleted."""
        old = images.alias("old")
        statement = (
            select(images.c.number)
            .join(replacements, replacements.c.image == images.c.number)
            .join(old, old.c.number == replacements.c.replaced)
            .where(
                images.c.status == Status.QUEUED,
                images.c.updated_at < since,
                old.c.status == Status.PENDING_DELETE,
            )
        )
        return list(self.connection.execute(statement).scalars())

    def lately_deleted(self, folder: int, name: str, since: datetime) -> list[Entry]:
        """What was deleted from a name since that time, newest first; not what gave way there.

        An image gave way when another one with data has taken its place.
        """
        newer = images.alias("newer")
        gave_way = (
            exists()
            .where(replacements.c.replaced == images.c.number)
            .where(newer.c.number == replacements.c.image)
            .where(
                or_(
                    newer.c.status.in_(sorted(HAS_DATA)),
                    newer.c.status_before_delete.in_(sorted(HAS_DATA)),
                )
            )
        )
        statement = (
            select(images, locations)
            .join(locations, locations.c.image == images.c.number)
            .where(
                images.c.name == name,
                images.c.status == Status.PENDING_DELETE,
                images.c.deleted_at > since,
                locations.c.trashed_from == folder,
                ~gave_way,
            )
            .order_by(images.c.deleted_at.desc())
        )
        return [make_entry(row) for row in self.connection.execute(statement)]

    def spare(self, image: int, at: datetime, reason: str) -> None:
        """Note that a replacement of the image failed at that time, and why."""
        self.connection.execute(delete(spared).where(spared.c.image == image))
        row = {"image": image, "failed_at": at, "reason": reason}
        self.connection.execute(spared.insert().values(row))

    def spared(self, image: int) -> tuple[datetime, str] | None:
        """When a replacement of the image failed last, and why; None if none did."""
        statement = select(spared.c.failed_at, spared.c.reason).where(spared.c.image == image)
        row = self.connection.execute(statement).one_or_none()
        return None if row is None else (row.failed_at, row.reason)

    def tell_everybody(self, folder: int, name: str) -> None:
        """Have the process that changes a name hear of it as well.

        Its own kernel knows what it asked for itself, and not what an upload's end did.
        """
        origin, self.origin = self.origin, ""
        self.tell(ChangeKind.ENTRY, folder=folder, name=name)
        self.origin = origin
