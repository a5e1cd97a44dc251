"""A folder with a marker file that names its store, so that a missing mount is noticed.

Safe from several threads and processes.

Where a disk or share is not mounted there is its mount point: an empty folder.  Therefore the
folder of a store has a marker file, and all work goes through a descriptor of the folder in
which the marker has just been read.  So nothing is written to an empty mount point, and
nothing is reported missing there, even if the disk goes away between two calls.
"""

from __future__ import annotations

import json
import os
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.errors import StoreUnavailable
from catalog.stores.os_errors import os_errors

MARKER = ".imagefs-store"

_IGNORED_WHEN_EMPTY = {"lost+found"}
"""What the root of a new file system contains."""


class MarkedFolder:
    """The folder of one store."""

    def __init__(self, owner: str, path: Path) -> None:
        """`owner` is the store's name."""
        self.owner = owner
        self.path = path
        self.expected: str | None = None
        """The mark that the folder must have; None for any."""

    def mark(self) -> str:
        """The id in the marker; empty in one of an early version.  Raises StoreUnavailable."""
        with self.opened() as folder:
            return self._read_marker(folder)[1]

    def initialize(self) -> None:
        """Create the folder if it is absent, and mark it if it is empty.  Idempotent.

        Raises StoreUnavailable if it belongs to another store, or if it has no marker and is
        not empty: then it has somebody's data, or is the wrong folder.
        """
        with os_errors(self.owner):
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / MARKER).exists():
                self._refuse_unless_empty()
                self._write_marker()
        with self.opened():
            pass

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the folder, after its marker was verified.  Raises StoreUnavailable."""
        try:
            with os_errors(self.owner):
                folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                error = StoreUnavailable(self.owner, f"there is no folder {self.path}")
            raise error from error.__cause__
        try:
            self._verify_marker(folder)
            yield folder
        finally:
            os.close(folder)

    def _verify_marker(self, folder: int) -> None:
        owner, mark = self._read_marker(folder)
        if owner != self.owner:
            raise StoreUnavailable(self.owner, f"{self.path} belongs to the store {owner!r}")
        if self.expected is not None and mark != self.expected:
            reason = (
                f"{self.path} is another folder than the one that this catalog's images are in:"
                " a folder that is not shared is a store of its own, with a name of its own"
            )
            raise StoreUnavailable(self.owner, reason)

    def _read_marker(self, folder: int) -> tuple[str, str]:
        """The store's name and the folder's id."""
        try:
            fd = os.open(MARKER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
            with os.fdopen(fd, "rb") as marker:
                found = json.loads(marker.read())
                return found["store"], str(found.get("id", ""))
        except FileNotFoundError:
            reason = f"{self.path} holds no {MARKER}: is its disk mounted?"
            raise StoreUnavailable(self.owner, reason) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = f"{self.path / MARKER} is damaged: {error}"
            raise StoreUnavailable(self.owner, reason) from error

    def _refuse_unless_empty(self) -> None:
        for found in os.listdir(self.path):
            # If `initialize` was killed, its marker is still here under the temporary name.
            if found not in _IGNORED_WHEN_EMPTY and not found.startswith(MARKER):
                reason = f"{self.path} is not empty and not a store: it holds {found!r}"
                raise StoreUnavailable(self.owner, reason)

    def _write_marker(self) -> None:
        # Written and synced under another name, then renamed: a crash never leaves half a marker.
        unfinished = self.path / f"{MARKER}.{secrets.token_hex(4)}"
        with unfinished.open("x") as marker:
            marker.write(json.dumps({"store": self.owner, "id": str(uuid.uuid4())}) + "\n")
            marker.flush()
            os.fsync(marker.fileno())
        unfinished.rename(self.path / MARKER)
        with self.opened() as folder:
            os.fsync(folder)
