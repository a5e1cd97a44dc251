"""Which image replaces which, and which one is spared because a replacement of it failed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, delete, exists, or_, select, update

from catalog.model.activity import ChangeKind
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Entry
from catalog.repository.rows import Rows
from catalog.repository.statements.prepared import Prepared
from catalog.repository.statements.tree import ENTRY
from catalog.repository.tables import images, locations, replacements, spared, uploads
from catalog.repository.tree import make_entry

_UNFINISHED = sorted({*IN_PROGRESS, Status.QUEUED})


_REPLACED = Prepared(
    select(replacements.c.replaced).where(replacements.c.image == bindparam("image"))
)
_DROP_REPLACED = Prepared(delete(replacements).where(replacements.c.image == bindparam("image")))
_SET_REPLACED = Prepared(replacements.insert(), columns=("image", "replaced"))
_SPARED = Prepared(
    select(spared.c.failed_at, spared.c.reason).where(spared.c.image == bindparam("image"))
)
_NEWER = images.alias("newer")
_HAS_DATA = sorted(HAS_DATA)
_GAVE_WAY = (
    exists()
    .where(replacements.c.replaced == images.c.number)
    .where(_NEWER.c.number == replacements.c.image)
    .where(
        or_(
            *(_NEWER.c.status == status for status in _HAS_DATA),
            *(_NEWER.c.status_before_delete == status for status in _HAS_DATA),
        )
    )
)
_LATELY_DELETED = Prepared(
    ENTRY.where(
        images.c.name == bindparam("name"),
        images.c.status == Status.PENDING_DELETE,
        images.c.deleted_at > bindparam("since"),
        locations.c.trashed_from == bindparam("folder"),
        ~_GAVE_WAY,
    ).order_by(images.c.deleted_at.desc())
)


class ReplacementRows(Rows):
    """Statements on `replacements` and `spared`."""

    def set_replaced(self, image: int, replaced: int) -> None:
        """Note that `image` replaces `replaced`, now or when it is finished."""
        _DROP_REPLACED.change(self.connection, image=image)
        _SET_REPLACED.change(self.connection, image=image, replaced=replaced)

    def replaced(self, image: int) -> int | None:
        """The image that `image` replaces or will replace; None if there is none."""
        row = _REPLACED.row(self.connection, image=image)
        return None if row is None else row[0]

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
        rows = _LATELY_DELETED.rows(self.connection, folder=folder, name=name, since=since)
        return [make_entry(row) for row in rows]

    def spare(self, image: int, at: datetime, reason: str) -> None:
        """Note that a replacement of the image failed at that time, and why."""
        self.connection.execute(delete(spared).where(spared.c.image == image))
        row = {"image": image, "failed_at": at, "reason": reason}
        self.connection.execute(spared.insert().values(row))

    def spared(self, image: int) -> tuple[datetime, str] | None:
        """When the last replacement of the image failed, and why; None if none failed."""
        row = _SPARED.row(self.connection, image=image)
        return None if row is None else (row[0], row[1])

    def tell_everybody(self, folder: int, name: str) -> None:
        """Append a change of a name that also the process which makes it has to follow.

        A mount skips its own changes, as its kernel has asked for them.  But the kernel did not
        ask for what happens at the end of an upload.
        """
        origin, self.origin = self.origin, ""
        self.tell(ChangeKind.ENTRY, folder=folder, name=name)
        self.origin = origin
