"""A store that keeps each image as one file of a folder, flat as Glance's file store.

Safe from several threads and processes: every change is one rename or unlink.

    <path>/<key>            an object, mode 0440
    <path>/.imagefs-store   the marker, see `marked_folder`
    <path>/.staging/        objects being written and uploads being staged
    <path>/.quarantine/     objects nobody refers to, moved away by fsck
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, field_validator, model_validator

from catalog.errors import InvalidName, NotFound, StoreUnavailable
from catalog.stores.base import Capability, IsGood, LeavesNothing, Stat, Usage, WithoutPolicy
from catalog.stores.folder.marker import MarkedFolder
from catalog.stores.folder.reader import FilesystemReader, etag_of
from catalog.stores.folder.writer import STAGING, FilesystemWriter, _left_by, _make_private
from catalog.stores.os_errors import os_errors
from catalog.stores.policy.settings import LOCAL_WEIGHT, PolicySettings

QUARANTINE = ".quarantine"

_SCHEME = "file://"
_OTHER_SCHEME = "filesystem://"
"""Glance reads urls of this scheme, too."""
_KEY_MAX = 200
"""Characters of a key.  This leaves room in a file name for the suffix of a staged file."""


class FilesystemStoreSettings(BaseModel):
    """`[stores.NAME]` with `type = "filesystem"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["filesystem"] = "filesystem"
    path: Path
    """The folder; absolute."""
    io_timeout: PositiveFloat | None = None
    """Seconds without an answer after which the server of a shared folder (NFS) has failed.

    Unset for a local disk, whose files programs then read directly.
    """
    policy: PolicySettings | None = None
    """Only with `io_timeout`: the folder is then as remote as any server's."""

    @property
    def policy_of_server(self) -> PolicySettings | None:
        """The policy of a folder on a server; None for one of this host."""
        if self.io_timeout is None:
            return None
        # One attempt only: the NFS client has repeated its requests itself until the time-out.
        return (self.policy or PolicySettings()).model_copy(update={"attempts": 1})

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute() or ".." in path.parts:
            raise ValueError("must be an absolute path without '..'")
        return path

    @model_validator(mode="after")
    def _is_remote_for_a_policy(self) -> FilesystemStoreSettings:
        if self.policy is not None and self.io_timeout is None:
            raise ValueError("policy is for a folder on a server: set io_timeout as well")
        return self


class FilesystemStore(WithoutPolicy, LeavesNothing):
    """A folder of one local or shared file system."""

    capabilities = (
        Capability.WRITE
        | Capability.COPY
        | Capability.STAGING
        | Capability.LISTING
        | Capability.RESUME
        | Capability.MARKED
    )
    weight = LOCAL_WEIGHT

    def __init__(self, name: str, settings: FilesystemStoreSettings) -> None:
        self.name = name
        self._folder = MarkedFolder(name, settings.path)

    def initialize(self) -> None:
        """Make the folder a store: create it if absent, mark it if empty.  Idempotent.

        Call it when a store is added to a catalog, never at each start: an empty folder then
        more likely means that a disk is not mounted.  Raises StoreUnavailable if the folder
        belongs to another store, or if it is not empty and not a store.
        """
        self._folder.initialize()

    def mark(self) -> str:
        """The id of the folder.  Raises StoreUnavailable."""
        return self._folder.mark()

    def expect(self, mark: str) -> None:
        """Be unavailable from now on unless the folder has this id."""
        self._folder.expected = mark

    def check(self) -> None:
        """Raise StoreUnavailable unless the folder is there and is this store's."""
        with self._folder.opened():
            pass

    def open(self, url: str) -> FilesystemReader:
        """Open an object to read.  Raises NotFound, StoreUnavailable."""
        key = self._key_of(url)

        def open_file() -> int:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            with self._folder.opened() as folder, os_errors(url, missing=NotFound):
                return os.open(key, flags, dir_fd=folder)

        return FilesystemReader(url, open_file)

    def stat(self, url: str) -> Stat:
        """Size, and an etag of inode, size and time.  Raises NotFound, StoreUnavailable."""
        key = self._key_of(url)
        with self._folder.opened() as folder, os_errors(url, missing=NotFound):
            found = os.stat(key, dir_fd=folder, follow_symlinks=False)
        return Stat(found.st_size, etag_of(found))

    def writer(self, key: str, size: int | None = None) -> FilesystemWriter:
        """Start storing an object.  No `size` is refused, as the object may have holes.

        Raises InvalidName, ReadOnlyStore, StoreUnavailable, StoreFull.
        """
        return FilesystemWriter(self._folder, key, self.url_of(key))

    def resume(
        self, key: str, size: int, step: int, is_good: IsGood
    ) -> tuple[FilesystemWriter, int]:
        """Continue the longest unfinished file of this key in `.staging`; remove the others.

        The file is read back up to the first chunk that is not good.  Raises as `writer`.
        """
        url = self.url_of(key)
        with self._folder.opened() as folder, os_errors(url):
            left = _left_by(self._folder.path, key)
            left.sort(key=lambda name: os.stat(name, dir_fd=folder).st_size)
            *others, longest = left or [""]
            for name in others:
                os.unlink(name, dir_fd=folder)
        writer = FilesystemWriter(self._folder, key, url, longest)
        return writer, writer.keep(step, is_good) if longest else 0

    def delete(self, url: str) -> None:
        """Remove the object and unfinished uploads of it, durably.

        A missing object is no error.  Raises ReadOnlyStore, StoreUnavailable.
        """
        key = self._key_of(url)
        with self._folder.opened() as folder, os_errors(url):
            # The object comes last: if anything before it fails, the object is still whole.
            for name in [*_left_by(self._folder.path, key), key]:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    def copy(self, url: str, key: str) -> str:
        """Duplicate an object, sharing its blocks where the file system can."""
        reader = self.open(url)
        try:
            writer = self.writer(key)
            try:
                writer.copy_from(reader.fileno())
                return writer.commit()
            finally:
                writer.cancel()
        finally:
            reader.close()

    def usage(self) -> Usage:
        """The file system's size, and its free bytes without those reserved for root."""
        with self._folder.opened() as folder, os_errors(self.name):
            found = os.fstatvfs(folder)
        return Usage(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def url_of(self, key: str) -> str:
        """`file://<path>/<key>`, not quoted: the syntax of glance_store."""
        return f"{_SCHEME}{self._folder.path / _checked(key)}"

    def keys(self) -> Iterator[str]:
        """Every regular file whose name does not start with a dot."""
        with self._folder.opened() as folder, os_errors(self.name), os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                    yield entry.name

    def staging_folder(self) -> Path:
        """`<path>/.staging`, which only its owner can enter.  Raises StoreUnavailable."""
        with self._folder.opened() as folder:
            _make_private(STAGING, folder)
        return self._folder.path / STAGING

    def quarantine(self, key: str) -> str:
        """Move an object to `.quarantine`, under a name never used before; return its path.

        Raises NotFound, ReadOnlyStore, StoreUnavailable.
        """
        place = f"{QUARANTINE}/{_checked(key)}.{secrets.token_hex(4)}"
        with self._folder.opened() as folder:
            _make_private(QUARANTINE, folder)
            with os_errors(self.url_of(key), missing=NotFound):
                os.rename(key, place, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
        return str(self._folder.path / place)

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _key_of(self, url: str) -> str:
        """The key in a url of this store.

        Any other url is StoreUnavailable, not NotFound: most likely `path` was changed
        in the settings, and the data must not be taken for lost.
        """
        parent, _, key = url.rpartition("/")
        if parent not in (f"{_SCHEME}{self._folder.path}", f"{_OTHER_SCHEME}{self._folder.path}"):
            raise StoreUnavailable(self.name, f"{url} is not inside {self._folder.path}")
        return _checked(key)


def _checked(key: str) -> str:
    """The key, if it is a name that stays inside the folder.  Raises InvalidName."""
    if not key or len(key) > _KEY_MAX or key.startswith(".") or "/" in key or "\0" in key:
        raise InvalidName(key, "is not a key of an image")
    return key
