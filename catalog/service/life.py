"""The life of a process that serves the catalog, beside its requests.

Scope: recovery at the start and later, copies in the background, the heartbeat, what systemd is
notified of.
A frontend calls `recover`, `start` and `ready`, then `beat` once in `BEAT` seconds, and at the end
`stopping` and `stop`.  Threading: any thread but trio's, as everything here may wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

from catalog.copies.recovery import recover
from catalog.errors import CatalogError
from catalog.model.activity import ServiceKind
from catalog.process import this_process
from catalog.rules import presence
from catalog.service.systemd import notify
from catalog.tree.vfs import Vfs
from catalog.upkeep.replicator import Replicator
from catalog.uploads.upload import Upload

_log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between two heartbeats: other processes see soon which images are in use, and a copy of
the database's main file lacks no more than this."""

_PAUSE = 5.0
"""Seconds without a heartbeat after one that failed: each failure is a line in the log."""
_RECOVER = 60.0
"""Seconds between two looks for processes of all hosts that have ended."""
_STOP = 5.0
"""Seconds for a copy in the background to be cleaned up at a stop."""


class Life:
    """What a serving process does, from its start to its end, whatever its protocol."""

    def __init__(self, vfs: Vfs, kind: ServiceKind, place: str) -> None:
        """`place` is the mount point, or the address at which it serves."""
        self._vfs = vfs
        self._kind = kind
        self._place = place
        self._replicator = None if vfs.catalog.reads_only else Replicator(vfs.catalog)
        self._resting_until = 0.0
        # By the monotonic clock: when the next one is due.
        self._beat_at = 0.0
        self._recover_at = 0.0

    def recover(self) -> None:
        """Clean up after processes that have ended.  Before the first request.

        Who only reads leaves that to others.
        """
        self._recover_at = time.monotonic() + _RECOVER
        if self._vfs.catalog.reads_only:
            return
        for image in recover(self._vfs.catalog):
            _log.warning("%s (%s): killed: its upload was cut off", image.name, image.id)

    def start(self) -> None:
        """Register this process, and begin to make copies in the background."""
        self._register()
        if self._replicator is not None:
            self._replicator.start()

    def _register(self) -> None:
        others = presence.register(
            self._vfs.catalog, this_process(), self._kind, self._place, version("imagefs")
        )
        for other in others:
            _log.warning(
                "another host is called %s, too, and has the catalog at %s: give each host a name"
                " of its own",
                other.process.host,
                other.place,
            )
        self._beat_at = time.monotonic() + presence.HEARTBEAT.total_seconds()

    def ready(self, status: str = "") -> None:
        """Notify systemd that requests are answered; `status` is what it shows."""
        notify("READY=1" + (f"\nSTATUS={status}" if status else ""))

    def beat(self) -> Sequence[Upload]:
        """Publish what is in use, end aborted uploads, bring the database's file up to date.

        Returns the uploads that it has ended.  A database that does not answer is no reason to
        stop: requests report it, and work again when it is back.
        """
        if time.monotonic() < self._resting_until:
            return ()
        # If the database does not answer, what follows reports it.
        with suppress(CatalogError):
            self._vfs.catalog.checkpoint()
        try:
            self._show_presence()
            self._vfs.uses.publish()
            return self._vfs.uploads.give_up_aborted()
        except CatalogError as error:
            _log.warning("housekeeping: %s", error)
            self._resting_until = time.monotonic() + _PAUSE
            return ()

    def _show_presence(self) -> None:
        """Send the heartbeat, and clean up after others that have sent none, when it is time."""
        at = time.monotonic()
        if at >= self._beat_at:
            self._beat_at = at + presence.HEARTBEAT.total_seconds()
            if not presence.live(self._vfs.catalog, this_process()):
                # Forgotten, by an operator or by hosts that could not hear of this one.
                self._register()
        if at >= self._recover_at:
            self.recover()

    def show_life(self) -> None:
        """Notify systemd's watchdog.  Called from where requests would hang if this one does."""
        notify("WATCHDOG=1")

    def stopping(self) -> None:
        """Notify systemd that the end has begun."""
        notify("STOPPING=1")

    def stop(self) -> None:
        """End the copies in the background, and say that this process serves no more."""
        if self._replicator is not None:
            self._replicator.stop(_STOP)
        with suppress(CatalogError):
            presence.leave(self._vfs.catalog, this_process())
