"""One image that is read in this process: each chunk is fetched once, however many wait for it.

A chunk that is being fetched is a flight, and all who want the chunk wait for its flight.  The
chunk is put on the shelf before its flight ends, so that nobody can miss both.  Between processes
the chunk's lock does the same (`disk`).  Threading: any; only readers' threads wait for flights,
never those of the pool.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from catalog.cache.boot_profile import BootProfile, Follower, Recorder, decode
from catalog.cache.chunks import Chunks
from catalog.cache.disk import DiskImage
from catalog.cache.pool import Job, Pool, Urgency
from catalog.cache.shelf import Shelf
from catalog.cache.sources import Sources
from catalog.cache.window import RUN
from catalog.errors import StoreUnavailable
from catalog.stores.base import Data

_LOCK_WAIT = 60.0
"""Seconds to wait for another process that fetches a chunk; then it is fetched here, too."""
_POLL = 0.005
"""Seconds between the first two looks at such a chunk; they grow to ten times as many."""
_ATTEMPTS = 5
"""Attempts to read a chunk that is dropped again as soon as it is here."""


@dataclass(slots=True, eq=False)
class Flight:
    """One chunk that is being fetched."""

    index: int
    job: Job | None = None
    landed: Future[memoryview | None] = field(default_factory=Future)
    """Its bytes, or None if the waiter has to look at the shelf again."""

    def land(self, view: memoryview | None, failure: BaseException | None = None) -> None:
        """End the flight, with its bytes or with a failure."""
        # The job refers to its flights.  Such a circle would keep megabytes until the garbage
        # collector comes.
        self.job = None
        if failure is None:
            self.landed.set_result(view)
        else:
            self.landed.set_exception(failure)


class OpenImage:
    """The chunks of one open image: in memory, on the disk, or in the stores."""

    def __init__(
        self,
        chunks: Chunks,
        copies: Sources,
        shelf: Shelf,
        pool: Pool,
        users: Callable[[OpenImage, int], None],
        profile: BootProfile | None = None,
    ) -> None:
        """`users` is called with 1 and -1 when a fetch for the image begins and ends."""
        self.chunks = chunks
        self.copies = copies
        self.disk: DiskImage | None = shelf.open(chunks)
        self.users = 0
        """Readers, and fetches under way."""
        self.readers = 0
        self._shelf = shelf
        self._pool = pool
        self._users = users
        self._lock = threading.Lock()
        self._flights: dict[int, Flight] = {}
        self._fills = False
        self._fill_from = 0
        self._filling: Flight | None = None
        self._recorder: Recorder | None = None
        self._follower: Follower | None = None
        if profile is not None and profile.text:
            self._follower = Follower(decode(profile.text, chunks.count))
        elif profile is not None:
            self._recorder = Recorder(chunks.count, profile.save)

    @property
    def is_kept(self) -> bool:
        """Whether fetched chunks go to the disk."""
        return self._shelf.takes(self.disk)

    def is_complete(self) -> bool:
        """Whether the whole image is on the disk."""
        return self.disk is not None and self.disk.is_complete()

    def is_near(self, index: int) -> bool:
        """Whether a chunk is here, or is being fetched."""
        return index in self._flights or self._shelf.has(self.disk, self.chunks, index)

    def note(self, index: int) -> None:
        """Note that a chunk is read: to record a boot profile, or to follow one."""
        if self._recorder is not None:
            self._recorder.note(index)
        if self._follower is not None and self.is_kept:
            for run in self._follower.note(index):
                for at in range(run.start, run.stop, RUN):
                    self.fetch(range(at, min(at + RUN, run.stop)), Urgency.SOON)

    def read(self, index: int, start: int, end: int) -> Data:
        """The verified bytes `[start, end)`, which are in chunk `index`.

        Raises DataDamaged, StoreUnavailable.
        """
        base, _ = self.chunks.span(index, index + 1)
        for attempt in range(_ATTEMPTS):
            data = self._shelf.get(self.disk, self.chunks, index, start, end)
            if attempt == 0:
                self.count(is_hit=data is not None)
            if data is not None:
                return data
            flight = self._wanted(index)
            view = flight.landed.result() if flight is not None else None
            if view is not None:
                return view[start - base : end - base]
        # It was dropped again each time, as on a full disk: read it past the cache.
        ((_, view),) = self.copies.fetch(index, index + 1)
        return view[start - base : end - base]

    def count(self, *, is_hit: bool) -> None:
        """Count a read, by whether its bytes were here."""
        self._shelf.count(is_hit=is_hit)

    def fetch(self, run: range, urgency: Urgency) -> None:
        """Let the pool fetch the chunks that are not here yet.

        Raises StoreUnavailable after the pool was closed.
        """
        with self._lock:
            for part in _consecutive(i for i in run if not self.is_near(i)):
                self._begin(part, urgency)

    def fill(self) -> None:
        """From now on let the whole image be fetched, one run at a time, while it has readers.

        All other fetches come first.  After a failure it goes on when the next fetch has
        succeeded.
        """
        self._fills = True
        self._fill_on()

    def close(self) -> None:
        """Close files and readers; nobody reads any more."""
        if self._recorder is not None:
            self._recorder.finish()
        self._shelf.release(self.disk, self.chunks)
        self.copies.close()

    def _wanted(self, index: int) -> Flight | None:
        """The flight of a chunk that a reader waits for; None if the chunk is here by now."""
        with self._lock:
            flight = self._flights.get(index)
            if flight is not None:
                assert flight.job is not None
                self._pool.hurry(flight.job)
                return flight
            if self._shelf.has(self.disk, self.chunks, index):
                return None
            return self._begin(range(index, index + 1), Urgency.WANTED)[0]

    def _begin(self, run: range, urgency: Urgency) -> list[Flight]:
        """Begin to fetch consecutive chunks by one request.  The lock is held."""
        flights = [Flight(index) for index in run]
        job = Job(
            self.copies.store,
            urgency,
            work=lambda urgency: self._fly(flights, waits=urgency is Urgency.WANTED),
            cancel=lambda: self._end(flights, StoreUnavailable(self.chunks.image, "was closed")),
        )
        for flight in flights:
            flight.job = job
            self._flights[flight.index] = flight
        accepted = False
        try:
            self._users(self, 1)
            accepted = self._pool.submit(job)
        finally:
            if not accepted:
                for flight in flights:
                    del self._flights[flight.index]
                self._users(self, -1)
        return flights

    def _fly(self, flights: list[Flight], *, waits: bool) -> None:
        """In a thread of the pool: fetch the chunks of these flights."""
        failure: BaseException | None = None
        locked: set[int] = set()
        try:
            missing = self._lock_chunks([flight.index for flight in flights], locked, waits=waits)
            for run in _consecutive(missing):
                for index, view in self.copies.fetch(run.start, run.stop):
                    self._land(index, view, locked)
        except OSError:
            # An error of the disk.  The readers look again, and in the end read past the cache.
            failure = None
        except BaseException as error:  # noqa: BLE001 - it is the waiting reader's
            failure = error
        finally:
            self._unlock(locked)
            self._end(flights, failure)
        # Last: nobody must wait for a chunk while this thread waits for the disk.
        self._shelf.wait_for_room()

    def _fill_on(self) -> None:
        """Begin to fetch the next missing run, unless one is being fetched for `fill`."""
        if not (self._fills and self.readers and self.is_kept):
            return
        with self._lock, suppress(StoreUnavailable):
            flight = self._filling
            if flight is not None and self._flights.get(flight.index) is flight:
                return
            while self._fill_from < self.chunks.count:
                start, end = self._fill_from, min(self._fill_from + RUN, self.chunks.count)
                self._fill_from = end
                for part in _consecutive(i for i in range(start, end) if not self.is_near(i)):
                    self._filling = self._begin(part, Urgency.FILL)[-1]
                    return

    def _land(self, index: int, view: memoryview, locked: set[int]) -> None:
        disk = self.disk if index in locked else None
        # On the shelf first, then the flight ends: whoever sees no flight finds the chunk there.
        if self._shelf.put(disk, self.chunks, index, view):
            # The chunk goes to the disk, and `disk.flush` releases its lock.
            locked.discard(index)
        with self._lock:
            flight = self._flights.pop(index)
        flight.land(view)

    def _end(self, flights: list[Flight], failure: BaseException | None) -> None:
        """End the flights that have not landed; without a failure, their readers look again."""
        with self._lock:
            left = [flight for flight in flights if not flight.landed.done()]
            for flight in left:
                del self._flights[flight.index]
        for flight in left:
            flight.land(None, failure)
        if failure is None:
            self._fill_on()
        else:
            self._fill_from = min(self._fill_from, flights[0].index)
        self._users(self, -1)

    def _lock_chunks(self, indices: list[int], locked: set[int], *, waits: bool) -> list[int]:
        """Lock chunks against other processes and note them in `locked`; return those to fetch."""
        disk = self.disk
        if disk is None:
            return indices
        missing = []
        for index in indices:
            if disk.lock(index):
                locked.add(index)
                # Asked only now: another process may have fetched it just before the lock.
                if not disk.has(index):
                    missing.append(index)
            elif waits and not self._wait(disk, index, locked):
                missing.append(index)
        return missing

    def _unlock(self, locked: set[int]) -> None:
        if self.disk is not None:
            with suppress(OSError):
                for index in locked:
                    self.disk.unlock(index)

    def _wait(self, disk: DiskImage, index: int, locked: set[int]) -> bool:
        """Wait for another process that fetches a chunk; False if it has to be fetched here."""
        end, pause = time.monotonic() + _LOCK_WAIT, _POLL
        while time.monotonic() < end:
            if disk.has(index):
                return True
            if disk.lock(index):
                locked.add(index)
                return disk.has(index)
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL * 10)
        return False


def _consecutive(indices: Iterable[int]) -> Iterator[range]:
    """Ascending numbers as ranges."""
    run = range(0)
    for index in indices:
        if run and index == run.stop:
            run = range(run.start, index + 1)
            continue
        if run:
            yield run
        run = range(index, index + 1)
    if run:
        yield run
