"""Digests of a file while it is being written (docs/adr/0003-digests-follow-the-writer.md).

Threading: each digest has a thread of its own, which follows the writer and reads the bytes from
the page cache.  So a write copies no bytes for it and never waits; hashlib releases the
interpreter's lock while it works.  While writes go forward, closing the file waits only for the
last bytes.  A file that stays small has no threads: it is read at its end, which takes less time
than to start one.  A write to bytes that a follower has read already ends the following, and
`finish` reads the file again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from catalog.model.digests import ChunkDigester
from catalog.model.image import ChunkDigests

_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of a whole file."""

    os_hash_algo: str
    os_hash_value: str
    checksum: str | None
    chunks: ChunkDigests


class _Whole:
    """One digest over all bytes."""

    def __init__(self, algo: str) -> None:
        self._hash = hashlib.new(algo, usedforsecurity=False)

    def update(self, data: memoryview) -> None:
        self._hash.update(data)

    def value(self) -> str:
        return self._hash.hexdigest()


class _Digest(Protocol):
    """A digest that a follower feeds."""

    def update(self, data: memoryview) -> None: ...


Digest = TypeVar("Digest", bound=_Digest)


class _Follower(Generic[Digest]):
    """Feeds one digest from the file, up to a limit; in a thread, once that is above `_BLOCK`."""

    def __init__(self, fd: int, make: Callable[[], Digest], name: str) -> None:
        self.digest = make()
        self.claimed = 0  # all bytes below are in the digest, or are being read for it
        self.limit = 0  # bytes below may be read
        self.error: OSError | None = None
        self._fd = fd
        self._make = make
        self._changed = threading.Condition()
        self._stopped = False
        self._busy = False
        self._name = name
        self._thread: threading.Thread | None = None

    def set_limit(self, limit: int) -> None:
        with self._changed:
            self.limit = limit
            if self._thread is None and limit > _BLOCK:
                name = f"digest-{self._name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def restart(self) -> None:
        """Begin again with an empty digest, and read nothing until there is a new limit."""
        with self._changed:
            self.limit = 0
            self._changed.wait_for(lambda: not self._busy)
            self.digest = self._make()
            self.claimed = 0

    def wait(self) -> None:
        """Wait until all bytes below the limit are in the digest.  Raises OSError."""
        if self._thread is None:
            self._feed(memoryview(bytearray(self.limit - self.claimed)), self.claimed)
            self.claimed = self.limit
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self.error or (self.claimed >= self.limit and not self._busy)
            )
            if self.error:
                raise self.error

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        block = memoryview(bytearray(_BLOCK))
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopped or self.claimed < self.limit)
                if self._stopped:
                    return
                offset = self.claimed
                size = min(_BLOCK, self.limit - offset)
                self.claimed += size
                self._busy = True
            try:
                self._feed(block[:size], offset)
            except OSError as error:
                with self._changed:
                    self.error, self._busy = error, False
                    self._changed.notify_all()
                return

    def _feed(self, block: memoryview, offset: int) -> None:
        while block:
            size = os.preadv(self._fd, [block], offset)
            if size == 0:
                raise OSError(f"the staged file ended at {offset}")
            self.digest.update(block[:size])
            block, offset = block[size:], offset + size


class Digester:
    """The digests of one file that is being written.  One writer at a time."""

    def __init__(self, fd: int, algo: str, *, checksum: bool) -> None:
        """Follow the file open at `fd`, which must stay open until `stop`."""
        self._algo = algo
        self._whole = _Follower[_Whole](fd, lambda: _Whole(algo), "whole")
        self._chunks = _Follower[ChunkDigester](fd, ChunkDigester, "chunks")
        self._md5 = _Follower[_Whole](fd, lambda: _Whole("md5"), "md5") if checksum else None
        self._followers: list[_Follower[Any]] = [self._whole, self._chunks]
        if self._md5 is not None:
            self._followers.append(self._md5)
        self._following = True
        self._high = 0  # the end of all writes so far

    def before_write(self, offset: int) -> None:
        """Note that the bytes from `offset` on are about to change."""
        if not self._following:
            return
        # The limits go down first: then no follower can claim bytes that are about to change, and
        # it can be seen whether one has claimed them already.
        for follower in self._followers:
            follower.set_limit(min(follower.limit, offset))
        if any(offset < follower.claimed for follower in self._followers):
            self._following = False
            for follower in self._followers:
                follower.restart()

    def after_write(self, end: int) -> None:
        """Note that a write up to `end` is done; a gap before it reads as zeros."""
        self._high = max(self._high, end)
        if self._following:
            for follower in self._followers:
                follower.set_limit(self._high)

    def truncate(self, size: int) -> None:
        """Note that the file is about to end at `size`."""
        self.before_write(size)
        self._high = min(self._high, size)

    def finish(self, size: int) -> Digests:
        """Wait for the digests of the bytes `[0, size)`.  Raises OSError."""
        for follower in self._followers:
            follower.set_limit(size)
        for follower in self._followers:
            follower.wait()
        return Digests(
            self._algo,
            self._whole.digest.value(),
            self._md5.digest.value() if self._md5 else None,
            self._chunks.digest.value(),
        )

    def stop(self) -> None:
        """End the threads.  Idempotent."""
        for follower in self._followers:
            follower.stop()
