"""Who uses images now, and when each was last used; deletion needs to know this.

A process that serves images (a mount, `imagefs dav`) notes what its readers have open, and
publishes it as leases.  The time of the last use stays after the lease: a guest that is shut off
has nothing open, and will need its backing file again.  Threading: any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from catalog.catalog import Catalog
from catalog.errors import CatalogError, Conflict
from catalog.model.activity import Use
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.process import Process, this_process
from catalog.rules import presence
from catalog.stores.base import Data, DataReader

LEASE_TIME = timedelta(minutes=10)
"""How long a lease is valid without being published again."""
_HEARTBEAT = 60.0
"""Seconds between two heartbeats of a process."""
_KEEP_USED = timedelta(days=1)
_CLOSING = 0.5
"""Seconds to wait for readers whose clients have just closed them: the kernel and HTTP clients do
not wait until we have closed them, too."""
_TOLD = 5
"""Users that are named in one line; the others are counted."""

_log = logging.getLogger(__name__)


User = str | Callable[[], str]
"""The name of a reader, for people; or a function that finds it out when it is needed."""


class Uses:
    """The images that this process' readers have open."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._publishing = threading.Lock()
        self._open: dict[int, list[_Reader]] = {}
        # Opened or closed since the last publication.
        self._touched: set[int] = set()
        self._beaten_at: float | None = None

    def note(self, image: Image, reader: DataReader, user: User) -> DataReader:
        """Return a reader that counts as a use of the image by `user` until it is closed."""
        noted = _Reader(self, image.number, reader, user)
        with self._lock:
            self._open.setdefault(image.number, []).append(noted)
            self._touched.add(image.number)
        if image.status is Status.PENDING_DELETE:
            # Published now: a scrubber may just be about to delete it.
            with suppress(CatalogError):
                self.publish()
        return noted

    def end(self, reader: _Reader) -> None:
        """Note that the reader is closed."""
        with self._lock:
            readers = self._open.get(reader.image, [])
            if reader in readers:
                readers.remove(reader)
                self._touched.add(reader.image)
            if not readers:
                self._open.pop(reader.image, None)
                self._ended.notify_all()

    def publish(self) -> None:
        """Publish what is in use, if that has changed or a minute is over.

        Raises CatalogUnavailable, CatalogLocked; then everything is published the next time.
        """
        with self._publishing:
            is_due = self._beaten_at is None or time.monotonic() - self._beaten_at > _HEARTBEAT
            with self._lock:
                touched, self._touched = self._touched, set()
                readers = {number: list(each) for number, each in self._open.items()}
            if not touched and not is_due:
                return
            # Outside the lock: to find out a program's name may take a while.
            held = {number: [each.use() for each in some] for number, some in readers.items()}
            try:
                presence.beat(
                    self._catalog, this_process(), sorted(held), held, touched | held.keys()
                )
            except BaseException:
                with self._lock:
                    self._touched |= touched
                raise
            self._beaten_at = time.monotonic()

    @contextmanager
    def told(self, image: Image, what: str) -> Iterator[None]:
        """Warn in the log if the block sends an image to the trash that is in use.

        `what` is DELETED or REPLACED.
        """
        self.publish_of(image)
        users = in_use(self._catalog, image.number)
        yield
        if users and self._catalog.image(image.number).status is Status.PENDING_DELETE:
            _log.warning("%s", warning(image, users, what))

    def check_closed(self, image: Image) -> None:
        """Raise Conflict if anybody has the image open, through this process or another one."""
        with self._ended:
            self._ended.wait_for(lambda: image.number not in self._open, _CLOSING)
        self.publish_of(image)
        check_unused(self._catalog, image)

    def publish_of(self, image: Image) -> None:
        """Publish this process' uses if it uses the image, which is about to be changed."""
        with self._lock:
            is_ours = image.number in self._touched or image.number in self._open
        if is_ours:
            with suppress(CatalogError):
                self.publish()


def check_unused(catalog: Catalog, image: Image) -> None:
    """Raise Conflict if a process has published that it holds the image open."""
    for use in in_use(catalog, image.number):
        raise Conflict(image.name, f"is in use by {use}")


def in_use(catalog: Catalog, number: int) -> list[Use]:
    """The programs that have the image open now, on all hosts, the oldest first."""
    with catalog.read() as repository:
        uses = repository.uses(number)
        return current(uses, presence.ended(repository)) if uses else []


def current(uses: Iterable[Use], has_ended: Callable[[Process], bool]) -> list[Use]:
    """The uses whose processes have not ended, the oldest first."""
    recent = (use for use in uses if now() - use.heartbeat_at < LEASE_TIME)
    return sorted((use for use in recent if not has_ended(use.process)), key=lambda use: use.since)


def check_unneeded(catalog: Catalog, image: Image) -> None:
    """Raise Conflict if the scrubber has to spare an image because it was used lately.

    Lately means within `scrub_time`, and within a day at least: an image that is opened every
    day counts as in use all the time.
    """
    with catalog.read() as repository:
        used_at = repository.used_at(image.number)
    kept = max(timedelta(seconds=catalog.settings.scrub_time), _KEEP_USED)
    if used_at is not None and now() - used_at < kept:
        until = used_at + kept
        raise Conflict(
            image.name, f"was in use at {_minute(used_at)}: stays until {_minute(until)}"
        )


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def warning(image: Image, users: list[Use], what: str) -> str:
    """The warning for a user who has deleted or replaced an image that is in use."""
    names = dict.fromkeys(str(use) for use in users)
    shown = ", ".join(list(names)[:_TOLD])
    if len(names) > _TOLD:
        shown += f" and {len(names) - _TOLD} more"
    text = (
        f"{image.name} ({image.id}) was {what} while in use by {shown}: "
        "its data stays in the trash for them"
    )
    if what == REPLACED:
        return f"{text}; a guest that names it by path, and not by /.by-id, gets the new data"
    return text


def warn(catalog: Catalog, image: Image, uses: Iterable[Use], what: str) -> None:
    """Warn in the log that an image has gone to the trash, if anybody still uses it."""
    users = current(uses, presence.have_ended(catalog)) if uses else []
    if users:
        _log.warning("%s", warning(image, users, what))


DELETED = "deleted"
REPLACED = "replaced"


class _Reader:
    """A reader that counts as a use of its image until it is closed."""

    def __init__(self, uses: Uses, image: int, reader: DataReader, user: User) -> None:
        self.size = reader.size
        self.image = image
        self._since = now()
        self._user = user
        self._uses = uses
        self._reader = reader

    def use(self) -> Use:
        """The use by this reader."""
        if not isinstance(self._user, str):
            self._user = self._user()
        return Use(this_process(), self._user, self._since, now())

    def read_at(self, offset: int, size: int) -> Data:
        return self._reader.read_at(offset, size)

    def fileno(self) -> int | None:
        return self._reader.fileno()

    def close(self) -> None:
        self._uses.end(self)
        self._reader.close()
