"""The contract between the catalog and a store of image data.

A driver is one file in this package, listed in `registry`; `tests/catalog/stores/contract.py`
holds every driver to what is written here.  Policy (retries, limits, caches) belongs in
wrappers, never in a driver.

A *key* is the id of an image.  A *url* is what a driver returns from a commit and is
kept in the image's location row; it never holds a credential.

Every method MUST be safe to call from several threads at once, except that one writer
is used by one thread at a time.  Every method MUST raise only `catalog.errors`:
foreign exceptions are mapped where the foreign library is called.  Sizes and offsets
are bytes; ranges are half-open, `[offset, offset + size)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Flag, auto
from pathlib import Path
from typing import Protocol, runtime_checkable

Data = bytes | memoryview
"""Bytes that nobody changes; a view of them may keep a larger block in memory."""


class Capability(Flag):
    """What a store can do beyond reading."""

    NONE = 0
    WRITE = auto()
    """Takes new data: `writer` and `delete` work."""
    COPY = auto()
    """`copy` duplicates data without passing it through this host."""
    EXTERNAL = auto()
    """Locations are URLs registered by the user (`ln -s URL`); data is not ours."""
    STAGING = auto()
    """`staging_folder` is on the store's own file system, so that commit is a rename."""
    LISTING = auto()
    """`keys` lists everything stored, for fsck."""
    RESUME = auto()
    """The store is Resuming."""
    GROWING = auto()
    """Its writers `send` a staged file while it is still being written."""


Check = Callable[[], None]
"""Raises a CatalogError, but not StoreUnavailable, when data is not to be sent any more."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store knows of one object."""

    size: int
    """Bytes."""
    etag: str
    """Changes whenever the bytes may have changed; empty if the store cannot tell."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A store's room.  `None` where the store has no limit or cannot tell."""

    total: int | None
    free: int | None


class DataReader(Protocol):
    """An open object.  Closing is idempotent."""

    size: int
    """Bytes, fixed when it was opened."""

    def read_at(self, offset: int, size: int) -> Data:
        """Return exactly the bytes `[offset, offset + size)`, cut at the end of the object.

        MUST return all of them or raise: never short before the end, never other
        bytes.  Raises NotFound, StoreUnavailable.
        """

    def fileno(self) -> int | None:
        """A descriptor of a local file with the same bytes at the same offsets, or None.

        The descriptor belongs to the reader and lives until `close`.
        """

    def close(self) -> None:
        """Release what the reader holds.  Not while a `read_at` is running."""


class DataWriter(Protocol):
    """One object being stored.  Nothing of it can be read before `commit` returns.

    Used as: `write` in order of offsets (or `send`s and `take`, once) then `commit`, or
    `cancel` at any time.
    """

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.  Raises StoreFull, ImageTooLarge, StoreUnavailable.

        A store may notice only at `commit` that it is full.
        """

    def send(self, staged: Path, ready: int, check: Check) -> int:
        """Send more of a staged file that still grows; return the end of what was begun.

        The bytes `[0, ready)` are there.  Those below what is returned may be read from
        the file at any time from now on, and by now are final; others may still change.
        Returns when more could be begun, and MUST NOT wait for more to be there.  Whatever
        is under way calls `check` before each block, also after the return, so that it
        ends soon when the file was changed after all or the upload was given up.  No request
        is made for what is so small that one can do it at `commit`.  After an error only
        `cancel` is allowed.  Raises as `write`, and what `check` raises.
        Not called without GROWING.
        """

    def take(self, staged: Path) -> None:
        """Take over a complete staged file instead of `write`s, or what `send` left of it.

        A store with STAGING moves the file when it lies in its `staging_folder`
        (and MUST do so without copying); any other copies it.  Holes stay holes
        where the store can.  MUST leave `staged` in place until `commit`; after
        `commit` the file may be gone.
        """

    def commit(self) -> str:
        """Make the object durable, then visible under its key, and return its url.

        MUST be atomic: after a crash there is the whole object or none.  MUST
        replace an older object of the same key in one step.  Raises StoreFull,
        StoreUnavailable; the object is then as if `cancel` had been called.
        """

    def cancel(self) -> None:
        """Drop everything written.  Idempotent; does nothing after `commit`."""


class Store(Protocol):
    """One configured store."""

    name: str
    """The store's name in the configuration: its folder in the tree."""
    capabilities: Capability

    def initialize(self) -> None:
        """Make what the store keeps its data in (`imagefs init`), if that is ours to make.

        Idempotent.  Raises StoreUnavailable.
        """

    def check(self) -> None:
        """Raise StoreUnavailable unless the store answers now.  Cheap."""

    def open(self, url: str) -> DataReader:
        """Open an object to read.

        Raises NotFound, only if the store answered that it is not there; else
        StoreUnavailable, also for a url that cannot be this store's (its settings may
        have changed).  An EXTERNAL store raises InvalidValue for what is no url of its
        kind, and Forbidden where its settings do not permit it.
        """

    def stat(self, url: str) -> Stat:
        """Size and etag.  Raises as `open`."""

    def writer(self, key: str, size: int | None = None) -> DataWriter:
        """Start storing an object; `size` in bytes if it is known.

        Raises ReadOnlyStore, StoreUnavailable, StoreFull; InvalidName for a key the
        store cannot hold.
        """

    def delete(self, url: str) -> None:
        """Remove the object.  Idempotent: a missing object is no error.

        MUST also remove what a writer of this key has left that died with its process.
        Raises Conflict when the store says it is in use, ReadOnlyStore,
        StoreUnavailable.
        """

    def copy(self, url: str, key: str) -> str:
        """Duplicate an object of this store under another key; return its url.

        Only with COPY (else raises NotSupported).  MUST be atomic like `commit`.
        Raises NotFound, StoreFull, StoreUnavailable.
        """

    def usage(self) -> Usage:
        """Total and free bytes.  Raises StoreUnavailable."""

    def url_of(self, key: str) -> str:
        """The url `commit` returns for this key.  NotSupported when EXTERNAL."""

    def keys(self) -> Iterator[str]:
        """Every key that has data, in no order.  Only with LISTING (else NotSupported)."""

    def staging_folder(self) -> Path | None:
        """A local folder for uploads to be staged in, made if needed; None without STAGING."""

    def quarantine(self, key: str) -> str:
        """Move an object nobody refers to out of the way, keeping its bytes.

        Returns where it is now, for a person to read.  Raises NotFound, NotSupported.
        """

    def leftovers(self, older_than: float) -> Iterator[str]:
        """What writers that died have left where no key shows it (parts, segments), for fsck.

        Names begun more than `older_than` seconds ago, for `drop_leftover` and for a
        person to read.  Raises StoreUnavailable; NotSupported if the server cannot tell.
        """

    def drop_leftover(self, name: str) -> None:
        """Remove what `leftovers` told.  Idempotent.  Raises Conflict if it is in use after all,
        StoreUnavailable.
        """

    def close(self) -> None:
        """Release connections and threads."""


@runtime_checkable
class Reaching(Protocol):
    """A store with COPY whose `copy` also takes urls of other stores of the same service."""

    def reaches(self, url: str) -> bool:
        """Whether `copy` may be tried with it: it can still be refused.  Asks nobody."""


@runtime_checkable
class Streaming(Protocol):
    """A store whose objects can be had in one piece: of servers that know no ranges."""

    def stream(self, url: str) -> tuple[int | None, Iterator[bytes]]:
        """The size, if the server tells it, and the whole object in order, to be had once.

        The iterator raises StoreUnavailable when the object ends early.  Raises as `open`.
        """


IsGood = Callable[[int, bytes], bool]
"""Whether these are the bytes of the chunk of that number."""


@runtime_checkable
class Resuming(Protocol):
    """A store with RESUME: what a writer that died has stored of an object is not lost."""

    def resume(self, key: str, size: int, step: int, is_good: IsGood) -> tuple[DataWriter, int]:
        """As `writer`, to go on with what one of this key that died has left, if anything.

        Returns with the writer how many bytes it has: whole chunks of `step` bytes, or
        all, each of which `is_good`.  The bytes behind them are to be written; MUST NOT
        believe any other it has without comparing.  MUST remove what it does not use.
        Raises as `writer`.
        """


@runtime_checkable
class Advising(Protocol):
    """A store whose server has settings of its own that an operator should know of."""

    def advice(self) -> Iterator[str]:
        """One line for each.  Raises StoreUnavailable."""


class NothingToMake:
    """For stores that somebody else has made: a bucket, a pool, a web server."""

    def initialize(self) -> None:
        """Nothing is made."""


class SendsNothingEarly:
    """For writers of stores without GROWING."""

    def send(self, _staged: Path, _ready: int, _check: Check) -> int:
        """Nothing."""
        return 0


class LeavesNothing:
    """For stores whose dead writers leave nothing that `delete` or recovery would not find."""

    def leftovers(self, older_than: float) -> Iterator[str]:
        """Nothing."""
        return iter(())

    def drop_leftover(self, name: str) -> None:
        """There is none."""
