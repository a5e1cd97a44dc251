"""Makes copies in the background: a store's setting `replicas`.

Such copies have no names: they come and go with their image, whatever it is called.  The catalog
has a row for each copy to be made, written in the transaction of the upload, so that none is
forgotten.  Any process may make any of them, one at a time for each image.  After a failure the
image's message has the reason, and the copy is tried again, less and less often.  Threading: a
`Replicator` has one thread of its own.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from catalog.catalog import Catalog
from catalog.copies.progress import Notice
from catalog.copies.replicate import replicate
from catalog.errors import CatalogError, NotFound
from catalog.model.access import ADMIN
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import HAS_DATA, Status
from catalog.model.tree import LocationState
from catalog.repository.copies import WantedCopy
from catalog.rules import presence

_INTERVAL = 5.0
"""Seconds between two looks for due copies; each is one indexed query."""
_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(hours=1)

_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Raised in a copy when the process ends: the copy is taken back, and is made again later."""


class Replicator:
    """Makes the copies that are due, one after the other, until it is stopped."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._stopping = threading.Event()
        # A daemon thread: a store that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="replicas", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop within `timeout` seconds, if the stores answer; copies not made stay recorded."""
        self._stopping.set()
        self._thread.join(timeout)

    def work(self) -> None:
        """Make every copy that is due.  Raises CatalogUnavailable."""
        with self._catalog.read() as repository:
            due = repository.due_copies(now())
        for wanted in due:
            if self._stopping.is_set():
                return
            try:
                self._make(wanted)
            except (_Stopped, CatalogError):
                raise
            except Exception:  # noqa: BLE001 - a defect met by one image must not stop the others
                _log.exception("replicas: image %d failed unexpectedly", wanted.image)
                self._postpone(wanted, wanted.attempts + 1)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.work()
            except _Stopped:
                return
            except CatalogError as error:
                _log.warning("replicas: %s", error)
            self._stopping.wait(_INTERVAL)

    def _make(self, wanted: WantedCopy) -> None:
        with self._catalog.read() as repository:
            image = repository.image(wanted.image)
            locations = repository.locations_of(wanted.image)
            is_worked_on = presence.has_worker(repository, wanted.image)
        is_there = any(
            location.store == wanted.store and location.state is LocationState.ACTIVE
            for location in locations
        )
        if is_there or image.status in (Status.DELETED, Status.KILLED):
            self._forget(wanted)
        elif image.status not in HAS_DATA or is_worked_on:
            self._postpone(wanted, wanted.attempts)
        else:
            self._copy(wanted, image)

    def _copy(self, wanted: WantedCopy, image: Image) -> None:
        try:
            self._check_store(image, wanted.store)
            replicate(self._catalog, image, wanted.store, None, ADMIN, progress=self._check)
        except CatalogError as error:
            _log.info("%s: copying it to store %s failed: %s", image.id, wanted.store, error)
            self._postpone(wanted, wanted.attempts + 1)
        else:
            self._forget(wanted)

    def _check_store(self, image: Image, store: str) -> None:
        try:
            self._catalog.store(store)
        except NotFound as error:
            Notice(self._catalog, image, store).fail(error)
            raise

    def _check(self, _size: int) -> None:
        if self._stopping.is_set():
            raise _Stopped

    def _forget(self, wanted: WantedCopy) -> None:
        with self._catalog.write() as repository:
            repository.drop_wanted(wanted.image, wanted.store)

    def _postpone(self, wanted: WantedCopy, attempts: int) -> None:
        pause = min(_FIRST_PAUSE * 2 ** min(max(attempts - 1, 0), 10), _LONGEST_PAUSE)
        with self._catalog.write() as repository:
            repository.postpone_copy(wanted, attempts, now() + pause)
