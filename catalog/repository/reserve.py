"""Room that is kept beside a SQLite database, so that deleting is possible on a full disk.

Every change first needs room in the database's journal, even a deletion that will free gigabytes.
A deletion that meets a full disk gets a piece of the reserve.  The reserve is filled up again when
there is room.  Threading: any; if several processes delete at the same time, more pieces may be
released than are needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from catalog.errors import CatalogFull

RESERVE = 1 << 20
"""Bytes; one deletion writes about 100 KiB of journal."""
_PIECE = RESERVE // 4
_SPARE = 16 * RESERVE
"""Bytes that have to be free for the reserve to be made."""


class Reserve:
    """The file beside one database."""

    def __init__(self, database: Path | None) -> None:
        """None for a database on a server, which needs no reserve here."""
        self._database = database
        self._path = None if database is None else Path(f"{database}-reserve")

    def keep(self) -> None:
        """Fill the reserve up, if there is room for it and we may write to the folder."""
        if self._path is None or self._database is None:
            return
        with suppress(OSError):
            if self._size() >= RESERVE or room(self._path.parent) < _SPARE:
                return
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
            try:
                os.posix_fallocate(fd, 0, RESERVE)
                if os.geteuid() == 0:
                    owner = os.stat(self._database)
                    os.fchown(fd, owner.st_uid, owner.st_gid)
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Release a piece of the reserve to the disk; False if nothing is left."""
        if self._path is None:
            return False
        try:
            size = self._size()
            if size == 0:
                return False
            os.truncate(self._path, max(size - _PIECE, 0))
        except OSError:
            return False
        return True

    def _size(self) -> int:
        assert self._path is not None
        try:
            return os.stat(self._path, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0


def room(folder: Path) -> int:
    """Bytes that are free in a folder for everybody.  Raises OSError.

    The bytes that are free for root only are no measure: ext4 counts its own reserve there.
    """
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class HasReserve(Protocol):
    """An object with a reserve: a catalog."""

    @property
    def reserve(self) -> Reserve: ...


_Holder = TypeVar("_Holder", bound=HasReserve)
_Rest = ParamSpec("_Rest")
_Result = TypeVar("_Result")


def on_a_full_disk(
    function: Callable[Concatenate[_Holder, _Rest], _Result],
) -> Callable[Concatenate[_Holder, _Rest], _Result]:
    """Let a function that deletes use the reserve of its first argument.

    The function must be one transaction: it is called again while the disk is full and the
    reserve is not used up.
    """

    @wraps(function)
    def call(holder: _Holder, /, *args: _Rest.args, **values: _Rest.kwargs) -> _Result:
        while True:
            try:
                return function(holder, *args, **values)
            except CatalogFull:
                if not holder.reserve.release():
                    raise

    return call
