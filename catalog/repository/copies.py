"""Copies that are damaged, copies still to be made, and the message while one is being made.

Functions over a repository, as `copies.damaged(repository, number)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from catalog.model.activity import ChangeKind
from catalog.model.image import now
from catalog.repository.rows import Rows
from catalog.repository.tables import damages, images, locations, wanted_copies

SETTLE = timedelta(seconds=60)
"""How long after an upload its copies are begun: until then its writer may open it again
(docs/semantics.md#writing-a-file-uploads-an-image), and an image with two copies would refuse
that."""


@dataclass(frozen=True, slots=True)
class WantedCopy:
    """A copy that is to be made in the background."""

    image: int
    store: str
    attempts: int
    """How many failed."""
    due_at: datetime


# -- damaged copies --------------------------------------------------------------------


def mark_damaged(rows: Rows, location: int) -> None:
    """Note that a location's data is not what its digests say.  Idempotent."""
    if rows.connection.execute(select(damages).where(damages.c.location == location)).first():
        return
    rows.connection.execute(damages.insert().values(location=location, found_at=now()))


def clear_damaged(rows: Rows, location: int, image: int) -> None:
    """Drop a mark of damage, and add the image to the change feed: cached data is read again."""
    cleared = rows.connection.execute(delete(damages).where(damages.c.location == location))
    if cleared.rowcount:
        rows.tell(ChangeKind.IMAGE, image=image)


def damaged(rows: Rows, image: int) -> frozenset[int]:
    """The numbers of the image's locations whose data is damaged."""
    statement = (
        select(damages.c.location)
        .join(locations, locations.c.number == damages.c.location)
        .where(locations.c.image == image)
    )
    return frozenset(rows.connection.execute(statement).scalars())


# -- copies to be made -----------------------------------------------------------------


def want(rows: Rows, image: int, stores: Iterable[str], due_at: datetime) -> None:
    """Ask for a copy in each of these stores, from that time on; any older wish is replaced."""
    for store in stores:
        drop_wanted(rows, image, store)
        rows.connection.execute(
            wanted_copies.insert().values(image=image, store=store, attempts=0, due_at=due_at)
        )


def drop_wanted(rows: Rows, image: int, store: str) -> None:
    """Forget a copy that is made, or will never be."""
    rows.connection.execute(
        delete(wanted_copies).where(wanted_copies.c.image == image, wanted_copies.c.store == store)
    )


def postpone(rows: Rows, wanted: WantedCopy, attempts: int, due_at: datetime) -> None:
    """Try again at another time."""
    rows.connection.execute(
        update(wanted_copies)
        .where(wanted_copies.c.image == wanted.image, wanted_copies.c.store == wanted.store)
        .values(attempts=attempts, due_at=due_at)
    )


def due(rows: Rows, at: datetime, limit: int = 100) -> list[WantedCopy]:
    """Up to `limit` copies that may be made at that time, the longest due first."""
    statement = select(wanted_copies).where(wanted_copies.c.due_at <= at)
    found = rows.connection.execute(statement.order_by(wanted_copies.c.due_at).limit(limit))
    return [WantedCopy(*row) for row in found]


def set_message(rows: Rows, image: int, message: str) -> None:
    """Write the progress of a copy into the image's message.

    This changes neither the image's time nor the change feed.  Otherwise every mount would
    drop the kernel's cache of the image's data again and again.
    """
    rows.connection.execute(update(images).where(images.c.number == image).values(message=message))
