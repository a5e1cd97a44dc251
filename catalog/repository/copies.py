"""Copies that are damaged, copies still to be made, and the message while one is being made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, select, update

from catalog.model.activity import ChangeKind, EventKind
from catalog.model.clock import now
from catalog.repository.rows import Rows
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import damages, images, locations, wanted_copies

SETTLE = timedelta(seconds=60)
"""How long after an upload its copies are begun: until then its writer may open it again
(docs/semantics.md#writing-a-file-uploads-an-image), and an image with two copies would refuse
that."""


_DAMAGED = Prepared(
    select(damages.c.location)
    .join(locations, locations.c.number == damages.c.location)
    .where(locations.c.image == bindparam("image"))
)


@dataclass(frozen=True, slots=True)
class WantedCopy:
    """A copy that is to be made in the background."""

    image: int
    store: str
    attempts: int
    """How many failed."""
    due_at: datetime


class CopyRows(Rows):
    """Damaged copies, and copies to be made."""

    # -- damaged copies --------------------

    def mark_damaged(self, location: int) -> None:
        """Note that a location's data is not what its digests say.  Idempotent."""
        if self.connection.execute(select(damages).where(damages.c.location == location)).first():
            return
        self.connection.execute(damages.insert().values(location=location, found_at=now()))
        which = select(locations.c.image, locations.c.store).where(locations.c.number == location)
        for image, store in self.connection.execute(which):
            self.record(EventKind.DAMAGED, image, store=store)

    def clear_damaged(self, location: int, image: int) -> None:
        """Drop a mark of damage; the change feed says it, as cached data has to be read again."""
        cleared = self.connection.execute(delete(damages).where(damages.c.location == location))
        if cleared.rowcount:
            self.tell(ChangeKind.IMAGE, image=image)
            self.record(EventKind.REPAIRED, image)

    def damaged(self, image: int) -> frozenset[int]:
        """The numbers of the image's locations whose data is damaged."""
        rows = _DAMAGED.rows(self.connection, image=image)
        return frozenset([location for (location,) in rows])

    # -- copies to be made --------------------

    def want_copies(self, image: int, stores: Iterable[str], due_at: datetime) -> None:
        """Ask for a copy in each of these stores, from that time on; any older wish is replaced."""
        for store in stores:
            self.drop_wanted(image, store)
            self.connection.execute(
                wanted_copies.insert().values(image=image, store=store, attempts=0, due_at=due_at)
            )

    def drop_wanted(self, image: int, store: str) -> None:
        """Forget a copy that is made, or will never be."""
        self.connection.execute(
            delete(wanted_copies).where(
                wanted_copies.c.image == image, wanted_copies.c.store == store
            )
        )

    def postpone_copy(self, wanted: WantedCopy, attempts: int, due_at: datetime) -> None:
        """Try again at another time."""
        self.connection.execute(
            update(wanted_copies)
            .where(wanted_copies.c.image == wanted.image, wanted_copies.c.store == wanted.store)
            .values(attempts=attempts, due_at=due_at)
        )

    def due_copies(self, at: datetime, limit: int = 100) -> list[WantedCopy]:
        """Up to `limit` copies that may be made at that time, the longest due first."""
        statement = select(wanted_copies).where(wanted_copies.c.due_at <= at)
        found = self.connection.execute(statement.order_by(wanted_copies.c.due_at).limit(limit))
        return [WantedCopy(*row) for row in found]

    def set_message(self, image: int, message: str) -> None:
        """Write the progress of a copy into the image's message.

        This changes neither the image's time nor the change feed.  Otherwise every mount would
        drop the kernel's cache of the image's data again and again.
        """
        self.connection.execute(
            update(images).where(images.c.number == image).values(message=message)
        )
