"""Which images are spared from a deletion that may not mean them.

Who deletes a name without saying which image it means, while a replacement of it goes on or
soon after one has failed, may believe that it removes its own half-written file: clients of
WebDAV and shell scripts do.  The catalog keeps what has failed, so that neither a restart nor
another server forgets it.  Threading: runs inside its caller's transaction.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from catalog.errors import Spared
from catalog.model.image import now
from catalog.model.status import HAS_DATA
from catalog.model.tree import Entry
from catalog.repository.database import Repository

SPARED_FOR = timedelta(hours=1)
"""After a failed replacement, from who may have tried it: time-outs and repeats included."""
SPARED_FROM_SCRIPTS = timedelta(seconds=5)
"""From programs of this host, which clean up at once; soon somebody wants to try again."""
_SUCCESSOR_SPARED_FOR = timedelta(minutes=1)
"""After a success that followed a failure, perhaps another one's: that may still clean up."""


class Meant(Enum):
    """Whether who deletes a name means the image that it stands for."""

    SURELY = None
    """It has said which, or is told what it deletes: the command, the page, an `If-Match`."""
    LIKELY = SPARED_FROM_SCRIPTS
    """unlink(2): `rm`, half of `cp -f`, or a script that cleans up."""
    PERHAPS = SPARED_FOR
    """DELETE: a client sends it for a name whatever has become of its PUT."""


def check_meant(repository: Repository, entry: Entry, meant: Meant) -> None:
    """Raise Spared for a good image that who deletes its name may not mean."""
    number = entry.image.number
    # What is protected is refused as that: waiting does not help there.
    if meant.value is None or entry.image.protected or entry.image.status not in HAS_DATA:
        return
    if meant is Meant.PERHAPS and repository.is_being_replaced(number, now() - SPARED_FOR):
        raise Spared(entry.name)
    failed_at, reason = repository.spared(number) or (None, "")
    if failed_at is not None and now() < failed_at + meant.value:
        raise Spared(entry.name, failed_at + meant.value, reason)


def note_failure(repository: Repository, number: int, reason: str) -> None:
    """Spare an image; in the trash or unfinished, that is for when it or its successor is good."""
    repository.spare(number, now(), reason)


def take_place(repository: Repository, number: int, replaced: int) -> None:
    """Note that an image has the place of another one.

    Other uploads that were to replace that one are to replace the new one now.
    """
    repository.set_replaced(number, replaced)
    repository.follow(replaced, number)
    failed_at, reason = repository.spared(replaced) or (None, "")
    if failed_at is not None:
        soon_over = now() - SPARED_FOR + _SUCCESSOR_SPARED_FOR
        repository.spare(number, min(failed_at, soon_over), reason)
