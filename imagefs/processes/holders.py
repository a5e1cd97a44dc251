"""Finds the processes that can still write to a file that is being closed.

FUSE's FLUSH names neither the process that closes nor those that keep the file.  Every process that
inherited the file, at any depth, was born after the file was opened.  So only the process that
opened it and those born since are looked at, and the cost does not grow with the number of
processes on the host.  A process that got the file in another way (over a socket, by pidfd_getfd)
is not seen; but RELEASE comes only when nobody has the file any more.  See
docs/adr/0028-looks-at-other-processes-have-a-deadline.md.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagefs.processes import writers
from imagefs.processes.looks import UNKNOWN, Looks, Unknown
from imagefs.processes.writers import NOBODY, File, Hold, Life, Seen, Watched, Writer

_MANY = 512
"""If more numbers than this were handed out since, /proc is listed; else each number is tried."""
_CROWD = 200
"""If more living processes than this were born since, they are not looked at."""
# Seconds between two looks at a process that is in execve(2) or dying.  If it still is after the
# last look, it waits for something, and that may be our answer.
_PAUSES = (0.001, 0.005, 0.02)
_DEAD = (Life.ENDED, Life.GONE)

# Time limits in seconds, by who waits meanwhile.  A busy machine answers late, and a look that is
# given up costs a writer its image or its open(2).  So no limit is shorter than it has to be.
_OPEN = 2.0
"""For open(2) and the first write(2): the process is in that call, so it holds no exec lock."""
_CLOSE = 0.75
"""For all looks of one close(2): the looks may wait for an execve(2) that waits for this close."""
_RELEASE = 5.0
"""After a file was closed for good: no process waits for this answer."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The result of the looks at one close(2)."""

    hold: Hold
    holders: frozenset[int] = frozenset()
    """Processes that were seen with the file, without the one that opened it."""
    failure: str | None = None
    """Why the written data must not be published: its writer is dying with the file open."""
    stopped: bool = False
    """Whether the writer closes the file because it was interrupted."""
    judged: bool = True
    """Whether the process that opened the file could be looked at."""
    may_hold: frozenset[int] = frozenset()
    """Processes that may still have the file, including the one that opened it: by a descriptor,
    a mapping, or a ring of io_uring, whose registered files cannot be seen."""


BLIND = Sight(Hold.UNKNOWN, judged=False)


@dataclass(slots=True)
class Trail:
    """The processes that may write to one open file, as far as they were seen."""

    opener: Writer
    born: int
    """The count of `Births` when the file was opened."""
    at_first_write: Seen | None = None
    last: Sight = Sight(Hold.UNKNOWN)
    watched: dict[int, Watched] = field(default_factory=dict)
    """Processes that had the file at the last look, or may have had it."""


NO_TRAIL = Trail(NOBODY, 0)


class Births:
    """Counts the processes and threads that are born, by their numbers.

    The kernel hands numbers out in order, and begins again after the highest.  The count is exact
    as long as `now` is called at least once in each round.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._round = 0
        self._newest = 0
        try:
            self._highest = int(Path("/proc/sys/kernel/pid_max").read_text())
        except OSError:
            self._highest = 1 << 22
        # In some containers /proc/loadavg is a file of another file system, with invented numbers.
        self._counts = _device("/proc/loadavg") == _device("/proc/self/status")

    def now(self) -> int:
        """The number of births so far."""
        newest = self._newest_number()
        with self._lock:
            # Only a much smaller number means a new round.  A slightly smaller one was read by a
            # thread that took the lock later than another one.
            if newest < self._newest - self._highest // 2:
                self._round += 1
                self._newest = newest
            self._newest = max(self._newest, newest)
            return self._round * self._highest + self._newest

    def since(self, born: int) -> Iterator[int]:
        """The numbers that were handed out since then; some of these processes are alive."""
        now = self.now()
        if now - born <= _MANY:
            yield from (number % self._highest for number in range(born + 1, now + 1))
            return
        for name in os.listdir("/proc"):
            if name.isdecimal() and (int(name) - born - 1) % self._highest < now - born:
                yield int(name)

    def _newest_number(self) -> int:
        if self._counts:
            with open("/proc/loadavg", "rb", buffering=0) as file:
                return int(file.read().split()[-1])
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        return thread.native_id or 0


class Holders:
    """Looks for the processes that hold files of one mount.  Threading: any thread."""

    def __init__(self) -> None:
        self.births = Births()
        self._looks = Looks()

    def trail(self, thread: int) -> Trail | Unknown:
        """Begin the trail of a file that a thread opens; `NO_TRAIL` if /proc does not show it."""

        def begin() -> Trail:
            opener = writers.of_thread(thread)
            return NO_TRAIL if opener.pid == 0 else Trail(opener, self.births.now())

        return self._looks.ask(thread, begin, _OPEN)

    def name(self, thread: int) -> str:
        """The program of a thread, for people."""
        found = self._looks.ask(thread, lambda: writers.of_thread(thread))
        return "a program" if found is UNKNOWN or found is NOBODY else str(found)

    def lives(self, writer: Writer) -> bool:
        """Whether a process still exists; True when it cannot be seen."""
        return self._looks.ask(writer.pid, lambda: writer.lives) is not False

    def note_first_write(self, trail: Trail) -> None:
        """Look at the process that opened the file, at its first write.

        At the close this is compared with the process then, to see whether it was interrupted.
        """
        pid = trail.opener.pid
        # A program in write(2) holds no lock that /proc waits for.  If this look fails, the next
        # write tries again: without it, a program that is interrupted would publish half an image.
        seen = self._looks.ask(pid, lambda: writers.see(pid), _OPEN)
        if seen is not UNKNOWN:
            trail.at_first_write = seen

    def look(self, trail: Trail, file: File) -> Sight:
        """See who holds the file that somebody has closed, and keep the result in the trail."""
        last = trail.last = self._look(trail, file)
        opener = set() if last.judged else {trail.opener.pid}
        old = trail.watched
        numbers = last.holders | last.may_hold | opener
        trail.watched = {n: old.get(n) or Watched(n) for n in numbers if n}
        return last

    def note_endings(self, trail: Trail) -> None:
        """Look at the processes that had the file at the last close(2).

        A process that ends with a mapping writes its pages then and closes no file, so that there
        is no FLUSH at which it could be looked at.
        """
        for number, watched in trail.watched.items():
            self._looks.ask(number, watched.see)

    def _look(self, trail: Trail, file: File) -> Sight:
        pid = trail.opener.pid
        if pid == 0:
            return BLIND
        give_up_at = time.monotonic() + _CLOSE
        seen = self._looks.ask(pid, lambda: writers.see(pid), _CLOSE)
        if seen is UNKNOWN:
            return replace(BLIND, holders=trail.last.holders)
        sight = Sight(
            Hold.UNKNOWN,
            trail.last.holders,
            _failure(str(trail.opener), seen) if seen.life is Life.EXITING else None,
            stopped=trail.at_first_write is not None and seen.stopped_since(trail.at_first_write),
        )
        if sight.failure is not None or seen.life is Life.EXECUTING:
            return sight
        left = give_up_at - time.monotonic()
        # Half of the time left: the processes that inherited the file need the other half.
        hold = self._looks.ask(pid, lambda: writers.holds(pid, file), left / 2)
        may_hold = frozenset({pid} if hold in (Hold.YES, Hold.UNKNOWN) else ())
        others = self._looks.ask(
            -pid,
            lambda: _Inheritors(trail, file, self.births, seen.uid, hold).look(),
            give_up_at - time.monotonic(),
        )
        # A process that may not be looked into counts as one without the file; the look at the
        # others decides.
        known = Hold.NO if hold is Hold.HIDDEN else hold
        holds: set[Hold] = {Hold.UNKNOWN if known is UNKNOWN else known}
        if others is UNKNOWN:
            holds.add(Hold.UNKNOWN)
        else:
            holds.add(others.hold)
            may_hold |= others.may_hold
            sight = replace(sight, holders=others.holders, failure=others.failure)
        if seen.life in _DEAD:
            # The opener is dead, so somebody else has closed the file.  If that process was not
            # seen, there may be more of them.
            holds.add(Hold.UNKNOWN)
        worst = next(it for it in (Hold.YES, Hold.UNKNOWN, Hold.NO) if it in holds)
        return replace(sight, hold=worst, may_hold=may_hold)

    def last_failure(self, trail: Trail) -> str | None:
        """Why the written data must not be published, now that nobody has the file any more.

        This depends on the last close(2), and on how the processes have ended that had the file
        then: a mapping ends with its process, and without a close(2).
        """
        if trail.last.failure is not None:
            return trail.last.failure
        for number, watched in trail.watched.items():
            inherited = number != trail.opener.pid
            who = f"(pid {number})" if inherited else str(trail.opener)
            seen = self._see_patiently(number, watched)
            if seen is UNKNOWN or seen.life is Life.GONE:
                return f"it was not seen how writer {who} ended"
            failure = _failure(who, replace(seen, failed=None) if inherited else seen)
            if failure is not None:
                return failure
        return None

    def _see_patiently(self, number: int, watched: Watched) -> Seen | Unknown:
        give_up_at = time.monotonic() + _RELEASE
        seen = self._looks.ask(number, watched.see)
        # An earlier look at the process may still be stuck; until it ends every new one is UNKNOWN.
        while seen is UNKNOWN and time.monotonic() < give_up_at:
            time.sleep(_PAUSES[-1])
            seen = self._looks.ask(number, watched.see)
        return seen


def _failure(writer: str, seen: Seen) -> str | None:
    if seen.killed is not None:
        return f"writer {writer} {seen.killed}"
    if seen.failed is not None:
        return f"writer {writer} {seen.failed} without closing the file"
    return None


class _Inheritors:
    """The processes that were born since a file was opened, and may have inherited it."""

    def __init__(self, trail: Trail, file: File, births: Births, uid: int, hold: object) -> None:
        """`uid` is the user of the process that opened it, `hold` whether it still has it."""
        self._trail = trail
        self._file = file
        self._births = births
        self._uid = uid
        self._opener_holds = hold is Hold.YES

    def look(self) -> Sight:
        """See which of them hold the file, and whether one of them is dying with it."""
        numbers = set(self._births.since(self._trail.born)) | self._trail.last.holders
        alive = {n: seen for n in numbers if (seen := writers.see(n)).life is not Life.ENDED}
        alive.pop(os.getpid(), None)
        if len(alive) > _CROWD:
            return Sight(Hold.UNKNOWN, self._trail.last.holders)
        waiting = self._still_waiting(alive)
        for number, seen in waiting.items():
            if self._dies_with_it(number, seen, alive):
                reason = f"writer {seen.command} (pid {number}) {seen.killed}"
                return Sight(Hold.NO, failure=reason)
        holds = {number: writers.holds(number, self._file) for number in alive}
        hidden = {number for number, hold in holds.items() if hold is Hold.HIDDEN}
        related = {number for number in hidden if self._descends(alive[number], alive)}
        holders = frozenset(number for number, hold in holds.items() if hold is Hold.YES)
        unsure = (
            Hold.UNKNOWN in holds.values()
            or any(seen.life is Life.EXECUTING for seen in waiting.values())
            or any(number in related or alive[number].uid == self._uid for number in hidden)
        )
        hold = Hold.YES if holders else Hold.UNKNOWN if unsure else Hold.NO
        unknown = {number for number, hold in holds.items() if hold is Hold.UNKNOWN}
        return Sight(hold, holders, may_hold=frozenset(unknown | related))

    def _still_waiting(self, alive: dict[int, Seen]) -> dict[int, Seen]:
        """Those that stay in execve(2) or exit(2); the one that closes the file is among them."""
        waiting = {n: seen for n, seen in alive.items() if _may_wait(seen)}
        for pause in _PAUSES:
            if not waiting:
                break
            time.sleep(pause)
            again = {number: writers.see(number) for number in waiting}
            waiting = {n: now for n, now in again.items() if now.life is waiting[n].life}
        return waiting

    def _dies_with_it(self, number: int, seen: Seen, alive: dict[int, Seen]) -> bool:
        if seen.killed is None or seen.life is not Life.EXITING:
            return False
        if number in self._trail.last.holders:
            return True
        # The opener still has the file, so it is not the one that closes it.  Then a child is.
        return self._opener_holds and self._descends(seen, alive)

    def _descends(self, seen: Seen, alive: dict[int, Seen]) -> bool:
        parents = set()
        while seen.parent not in parents:
            if seen.parent == self._trail.opener.pid:
                return True
            parents.add(seen.parent)
            seen = alive.get(seen.parent, seen)
        return False


def _may_wait(seen: Seen) -> bool:
    dying = seen.life is Life.EXITING and seen.killed is not None
    return dying or seen.life is Life.EXECUTING


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
