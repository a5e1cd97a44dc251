"""The contract between the catalog and a store of image data.

A driver is one file in this package, listed in `registry`; `tests/kit/stores/contract.py`
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
"""Bytes that nobody changes.  A view may keep a larger block in memory than it shows."""


class Capability(Flag):
    """What a store can do beyond reading."""

    NONE = 0
    WRITE = auto()
    """Takes new data: `writer` and `delete` work."""
    COPY = auto()
    """`copy` duplicates data without passing it through this host."""
    EXTERNAL = auto()
    """Locations are URLs that users register (`ln -s URL`); the data is not ours."""
    STAGING = auto()
    """`staging_folder` is on the store's own file system, so that commit is a rename."""
    LISTING = auto()
    """`keys` lists everything stored, for fsck."""
    RESUME = auto()
    """The store implements `Resuming`."""
    MARKED = auto()
    """The store implements `Marked`."""
    GROWING = auto()
    """Its writers `send` a staged file while it is still being written."""


Check = Callable[[], None]
"""Raises a CatalogError when the data is no longer wanted.  Never StoreUnavailable, which a
policy would take for a failure of the store and try again."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store knows of one object."""

    size: int
    """Bytes."""
    etag: str
    """Changes whenever the bytes may have changed; empty if the store has nothing like that."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A store's total and free bytes; None if the store has no limit or does not say."""

    total: int | None
    free: int | None


class DataReader(Protocol):
    """An open object.  Closing is idempotent."""

    size: int
    """Bytes, fixed when it was opened."""

    def read_at(self, offset: int, size: int) -> Data:
        """Return exactly the bytes `[offset, offset + size)`, cut at the end of the object.

        MUST return all of these bytes or raise: it never returns fewer before the end,
        and never other bytes.  Raises NotFound, StoreUnavailable.
        """

    def fileno(self) -> int | None:
        """A descriptor of a local file with the same bytes at the same offsets, or None.

        The descriptor belongs to the reader and lives until `close`.
        """

    def close(self) -> None:
        """Release what the reader holds.  Not to be called while a `read_at` is running."""


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
        """Send more of a staged file that still grows; return the offset up to which it is begun.

        The file has the bytes `[0, ready)`.  Bytes below the returned offset are final: the
        writer may read them from the file during the call and at any time after it.  Bytes
        above that offset may still change.

        Returns as soon as it could begin more, and MUST NOT wait for the file to grow.
        Requests under way call `check` before each block, also after the return, so that
        they end soon when the file was changed after all or the upload was given up.  Data
        that one request at `commit` can send is not sent early.  After an error only
        `cancel` is allowed.  Raises as `write`, and what `check` raises.  Called only for
        stores with GROWING.
        """

    def take(self, staged: Path) -> None:
        """Take over a complete staged file instead of `write`s, or the rest that `send` left.

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
    weight: int
    """Among the copies of an image, the one in the store with the greatest weight is read first."""

    def is_down(self, url: str) -> bool:
        """Whether whatever serves this url is known not to answer now.  Asks nobody."""

    def initialize(self) -> None:
        """Make the folder or container for the store's data (`imagefs init`), if we may make it.

        Idempotent.  Raises StoreUnavailable.
        """

    def check(self) -> None:
        """Raise StoreUnavailable unless the store answers now.  Cheap."""

    def open(self, url: str) -> DataReader:
        """Open an object to read.

        Raises NotFound only if the store answered that the object is not there, and
        otherwise StoreUnavailable.  A url of another store is StoreUnavailable, too: the
        settings may have changed, and the data must not be taken for lost.  An EXTERNAL
        store raises InvalidValue for a url that it cannot read, and Forbidden for one that
        its settings do not permit.
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

        MUST also remove unfinished uploads of this key, whose processes have died.  Raises
        Conflict when the store reports that it is in use, ReadOnlyStore, StoreUnavailable.
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
        """A local folder in which uploads are staged, made if needed; None without STAGING."""

    def quarantine(self, key: str) -> str:
        """Move an object nobody refers to out of the way, keeping its bytes.

        Returns where it is now, for a person to read.  Raises NotFound, NotSupported.
        """

    def leftovers(self, older_than: float) -> Iterator[str]:
        """Parts and segments of unfinished uploads, which `keys` does not show: for fsck.

        Yields the names of those begun more than `older_than` seconds ago, for
        `drop_leftover` and for a person to read.  Raises StoreUnavailable; NotSupported if
        the server cannot list them.
        """

    def drop_leftover(self, name: str) -> None:
        """Remove one of `leftovers`.  Idempotent.

        Raises Conflict if it is in use after all, StoreUnavailable.
        """

    def close(self) -> None:
        """Release connections and threads."""


@runtime_checkable
class Reaching(Protocol):
    """A store with COPY whose `copy` also takes urls of other stores of the same service."""

    def reaches(self, url: str) -> bool:
        """Whether `copy` may be tried with this url.  Asks nobody; the server may still refuse."""


@runtime_checkable
class Streaming(Protocol):
    """A store that can also send an object in one piece, for servers without ranged reads."""

    def stream(self, url: str) -> tuple[int | None, Iterator[bytes]]:
        """The size, if the server names it, and an iterator over the whole object, in order.

        The iterator raises StoreUnavailable when the object ends early.  Raises as `open`.
        """


IsGood = Callable[[int, bytes], bool]
"""Whether these bytes are right for the chunk with that number."""


@runtime_checkable
class Resuming(Protocol):
    """A store with RESUME: an unfinished upload can be continued by another process."""

    def resume(self, key: str, size: int, step: int, is_good: IsGood) -> tuple[DataWriter, int]:
        """Like `writer`, but continues an unfinished upload of the same key, if there is one.

        Returns the writer and how many bytes it has already: whole chunks of `step` bytes,
        or the whole object, and each chunk `is_good`.  The caller writes the bytes behind
        them.  MUST compare before it uses any other data of the unfinished upload, and MUST
        remove what it does not use.  Raises as `writer`.
        """


@runtime_checkable
class Marked(Protocol):
    """A store with MARKED: its settings may lead to another place on another host."""

    def mark(self) -> str:
        """What identifies the place, from whatever host it is reached.

        Raises StoreUnavailable.
        """

    def expect(self, mark: str) -> None:
        """Be unavailable from now on unless the place has this mark."""


@runtime_checkable
class Advising(Protocol):
    """A store whose server has settings of its own that an operator should know of."""

    def advice(self) -> Iterator[str]:
        """One line for each setting.  Raises StoreUnavailable."""


class WithoutPolicy:
    """A mixin for drivers: what the policy around them knows, they do not (`policy.remote`)."""

    weight = 0

    def is_down(self, _url: str) -> bool:
        """False: a driver remembers no failure."""
        return False


class NothingToMake:
    """A mixin for stores that somebody else has made: a bucket, a pool, a web server."""

    def initialize(self) -> None:
        """Nothing is made."""


class SendsNothingEarly:
    """A mixin for writers of stores without GROWING."""

    def send(self, _staged: Path, _ready: int, _check: Check) -> int:
        """Nothing."""
        return 0


class LeavesNothing:
    """A mixin for stores in which `delete` and recovery find all unfinished uploads."""

    def leftovers(self, older_than: float) -> Iterator[str]:
        """Nothing."""
        return iter(())

    def drop_leftover(self, name: str) -> None:
        """There is none."""
