"""What totals count, and the statements on them, for `catalog.repository.browse`."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import ColumnElement, and_, bindparam, case, func, select, update

from catalog.model.status import IN_PROGRESS, Status
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import image_counts, images, locations, totals

Key = tuple[str, str, str]
"""Store, owner and visibility."""
Totals = Mapping[Key, tuple[int, ...]]
"""What entries add up to: images, their bytes, images in progress, images in the trash."""

VALUES = (totals.c.images, totals.c.size, totals.c.in_progress, totals.c.trashed)
NOTHING = (0, 0, 0, 0)
IS_ENTRY = and_(locations.c.image == images.c.number, locations.c.folder.is_not(None))
COUNTED = Prepared(
    select(images.c.status, images.c.owner, images.c.visibility, images.c.size, locations.c.store)
    .select_from(images.outerjoin(locations, IS_ENTRY))
    .where(images.c.number == bindparam("image"))
)
ADD_COUNT = Prepared(
    update(image_counts)
    .where(image_counts.c.status == bindparam("which"))
    .values(images=image_counts.c.images + bindparam("more"))
)
FIRST_COUNT = Prepared(image_counts.insert(), columns=("status", "images"))
ADD_TOTALS = Prepared(
    update(totals)
    .where(
        totals.c.store == bindparam("of_store"),
        totals.c.owner == bindparam("of_owner"),
        totals.c.visibility == bindparam("of_visibility"),
    )
    .values({column: column + bindparam(f"more_{column.name}") for column in VALUES})
)
FIRST_TOTALS = Prepared(totals.insert(), columns=tuple(totals.c.keys()))


def share(status: str, size: int) -> tuple[int, ...]:
    """What one entry adds: the same as `sums`."""
    if status == Status.PENDING_DELETE:
        return 0, 0, 0, 1
    return 1, size, int(status in IN_PROGRESS), 0


def sums() -> tuple[ColumnElement[int], ...]:
    """What rows of images joined with their entries add up to, as `VALUES`."""
    is_trashed = images.c.status == Status.PENDING_DELETE
    return (
        func.sum(case((is_trashed, 0), else_=1)),
        func.sum(case((is_trashed, 0), else_=images.c.size)),
        func.sum(case((images.c.status.in_(sorted(IN_PROGRESS)), 1), else_=0)),
        func.sum(case((is_trashed, 1), else_=0)),
    )
