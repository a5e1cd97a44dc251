"""Which image replaces which, and which one is spared because a replacement of it failed."""

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
        """Note that `image` replaces `replaced`, now or when it is finished."""
        self.connection.execute(delete(replacements).where(replacements.c.image == image))
        self.connection.execute(replacements.insert().values(image=image, replaced=replaced))

    def replaced(self, image: int) -> int | None:
        """The image that `image` replaces or will replace; None if there is none."""
        statement = select(replacements.c.replaced).where(replacements.c.image == image)
        return self.connection.execute(statement).scalar_one_or_none()

    def follow(self, old: int, new: int) -> None:
        """Let unfinished images that would replace `old` replace `new` instead."""
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
        """Whether an upload that will replace the image was active after that time."""
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
        """Whether an unfinished image replaces this one: if that fails, this one comes back."""
        statement = (
            select(replacements.c.image)
            .join(images, images.c.number == replacements.c.image)
            .where(replacements.c.replaced == image, images.c.status.in_(_UNFINISHED))
        )
        return self.connection.execute(statement.limit(1)).first() is not None

    def never_written(self, since: datetime) -> list[int]:
        """Images that are queued since before that time, and would replace a deleted image."""
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
        """The entries that were deleted from a name after that time, newest first.

        Without images that were replaced: those for which another image with data has come.
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
        """When the last replacement of the image failed, and why; None if none failed."""
        statement = select(spared.c.failed_at, spared.c.reason).where(spared.c.image == image)
        row = self.connection.execute(statement).one_or_none()
        return None if row is None else (row.failed_at, row.reason)

    def tell_everybody(self, folder: int, name: str) -> None:
        """Append a change of a name that also the process which makes it has to follow.

        A mount skips its own changes, as its kernel has asked for them.  But the kernel did not
        ask for what happens at the end of an upload.
        """
        origin, self.origin = self.origin, ""
        self.tell(ChangeKind.ENTRY, folder=folder, name=name)
        self.origin = origin
