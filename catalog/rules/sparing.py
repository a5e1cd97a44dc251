"""Spares images from a deletion that may not mean them.

A client may delete a name while a replacement of the image goes on, or soon after one has failed.
Perhaps it believes that it removes its own half-written file: WebDAV clients and shell scripts do
so.  The catalog records the failure, so that a restart or another server knows of it, too.
Threading: runs inside its caller's transaction.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from catalog.errors import Spared
from catalog.model.clock import now
from catalog.model.status import HAS_DATA
from catalog.model.tree import Entry
from catalog.repository.database import Repository

SPARED_FOR = timedelta(hours=1)
"""How long after a failed replacement a client's DELETE is refused: long enough for its time-outs
and repeated requests."""
SPARED_FROM_SCRIPTS = timedelta(seconds=5)
"""The same for programs on this host.  They clean up at once, and a user may soon try again."""
_SUCCESSOR_SPARED_FOR = timedelta(minutes=1)
"""How long an image is spared that has come after a failure: the client that failed may be another
one, and may still clean up."""


class Meant(Enum):
    """Whether a deletion of a name surely means the image that has the name."""

    SURELY = None
    """The caller has named the image, or sees what it deletes: command, page, `If-Match`."""
    LIKELY = SPARED_FROM_SCRIPTS
    """unlink(2): `rm`, the first half of `cp -f`, or a script that cleans up."""
    PERHAPS = SPARED_FOR
    """DELETE: a client sends it for a name without knowing what has become of its PUT."""


def check_meant(repository: Repository, entry: Entry, meant: Meant) -> None:
    """Raise Spared for a good image that the deletion of its name may not mean."""
    number = entry.image.number
    # A protected image is refused with another error: waiting does not help there.
    if meant.value is None or entry.image.protected or entry.image.status not in HAS_DATA:
        return
    if meant is Meant.PERHAPS and repository.is_being_replaced(number, now() - SPARED_FOR):
        raise Spared(entry.name)
    failed_at, reason = repository.spared(number) or (None, "")
    if failed_at is not None and now() < failed_at + meant.value:
        raise Spared(entry.name, failed_at + meant.value, reason)


def note_failure(repository: Repository, number: int, reason: str) -> None:
    """Spare an image.

    If it is in the trash or unfinished, this counts when it, or the image after it, is good.
    """
    repository.spare(number, now(), reason)


def take_place(repository: Repository, number: int, replaced: int) -> None:
    """Note that an image has replaced another one.

    Other uploads that would have replaced the old image will replace the new one.
    """
    repository.set_replaced(number, replaced)
    repository.follow(replaced, number)
    failed_at, reason = repository.spared(replaced) or (None, "")
    if failed_at is not None:
        soon_over = now() - SPARED_FOR + _SUCCESSOR_SPARED_FOR
        repository.spare(number, min(failed_at, soon_over), reason)
