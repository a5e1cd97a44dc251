"""Who can still write to a file that is being closed.

A FUSE request to close says neither who closes nor who goes on.  Whoever inherited the file, at
whatever depth, was born after it was opened; so only the process that opened it and those born
since are looked at, and the cost does not grow with the processes of the host.  Who got it
otherwise (over a socket, by pidfd_getfd) is not seen: a file is closed for good when RELEASE comes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagefs import writers
from imagefs.looks import UNKNOWN, Looks, Unknown
from imagefs.writers import NOBODY, File, Hold, Life, Seen, Watched, Writer

_MANY = 512
"""Numbers handed out since, beyond which /proc is listed rather than each one tried."""
_CROWD = 200
"""Living processes born since, beyond which nobody looks at all of them."""
# Seconds between two looks at a process that is executing or dying.  One that still is after
# the last waits for something, and that may be us.
_PAUSES = (0.001, 0.005, 0.02)
_DEAD = (Life.ENDED, Life.GONE)

# Time limits in seconds, by who waits meanwhile.  A machine that is busy answers late: what is
# unknown then costs a writer its image or its open(2), so none is shorter than it must be.
_OPEN = 2.0
"""For open(2) and the first write(2): the process is in it, so nothing of it is locked."""
_CLOSE = 0.75
"""For all looks of one close(2), which may be a part of the execve(2) that the looks wait for."""
_RELEASE = 5.0
"""Once a file is closed for good: nobody waits for that answer."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen at a close(2)."""

    hold: Hold
    holders: frozenset[int] = frozenset()
    """Processes seen with the file, other than the one that opened it."""
    failure: str | None = None
    """Why what was written must not be published: its writer is dying with the file open."""
    stopped: bool = False
    """Whether the writer closes because it has been interrupted."""
    judged: bool = True
    """Whether it was seen how the process that opened the file is."""
    may_hold: frozenset[int] = frozenset()
    """Processes that may have it still, the one that opened it among them: by a descriptor, a
    mapping, or a ring of io_uring, which does not tell what is registered with it."""


BLIND = Sight(Hold.UNKNOWN, judged=False)


@dataclass(slots=True)
class Trail:
    """Who may write to one open file, as far as it was seen."""

    opener: Writer
    born: int
    """How many processes had been born when it was opened (`Births`)."""
    at_first_write: Seen | None = None
    last: Sight = Sight(Hold.UNKNOWN)
    watched: dict[int, Watched] = field(default_factory=dict)
    """Those that had the file at the last look, or may have had it."""


NO_TRAIL = Trail(NOBODY, 0)


class Births:
    """Counts the processes and threads that are born, by the numbers they get.

    Numbers are handed out in order and begin anew after the highest: exact as long as somebody
    asks at least once in each round.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._round = 0
        self._newest = 0
        try:
            self._highest = int(Path("/proc/sys/kernel/pid_max").read_text())
        except OSError:
            self._highest = 1 << 22
        # In some containers it is a file of another file system, with made-up numbers.
        self._counts = _device("/proc/loadavg") == _device("/proc/self/status")

    def now(self) -> int:
        """How many have been born so far."""
        newest = self._newest_number()
        with self._lock:
            # A little less than before: another thread has asked earlier and comes later.
            if newest < self._newest - self._highest // 2:
                self._round += 1
                self._newest = newest
            self._newest = max(self._newest, newest)
            return self._round * self._highest + self._newest

    def since(self, born: int) -> Iterator[int]:
        """The numbers of those born since then, some of which live."""
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
    """Looks for those who hold the files of one mount.  Threading: any thread."""

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
        """The program that a thread belongs to, for people."""
        found = self._looks.ask(thread, lambda: writers.of_thread(thread))
        return "a program" if found is UNKNOWN or found is NOBODY else str(found)

    def lives(self, writer: Writer) -> bool:
        """Whether a process still exists; True when it cannot be seen."""
        return self._looks.ask(writer.pid, lambda: writer.lives) is not False

    def note_first_write(self, trail: Trail) -> None:
        """Note how the process is that opened the file, now that it writes."""
        pid = trail.opener.pid
        # A program in write(2) holds no lock that /proc wants.  Who is not seen now is looked at
        # with its next write: without it, one that is interrupted would publish half.
        seen = self._looks.ask(pid, lambda: writers.see(pid), _OPEN)
        if seen is not UNKNOWN:
            trail.at_first_write = seen

    def look(self, trail: Trail, file: File) -> Sight:
        """See who holds the file that somebody has closed, and keep it in the trail."""
        last = trail.last = self._look(trail, file)
        opener = set() if last.judged else {trail.opener.pid}
        old = trail.watched
        numbers = last.holders | last.may_hold | opener
        trail.watched = {n: old.get(n) or Watched(n) for n in numbers if n}
        return last

    def note_endings(self, trail: Trail) -> None:
        """See how those are that had the file at the last close(2): a process that ends with a
        mapping writes its pages then, and closes nothing any more.
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
        # Half of it: who has inherited the file is to be seen as well.
        hold = self._looks.ask(pid, lambda: writers.holds(pid, file), left / 2)
        may_hold = frozenset({pid} if hold in (Hold.YES, Hold.UNKNOWN) else ())
        others = self._looks.ask(
            -pid,
            lambda: _Inheritors(trail, file, self.births, seen.uid, hold).look(),
            give_up_at - time.monotonic(),
        )
        # Hidden, it counts as one that has it no more: if others may have it, they tell.
        known = Hold.NO if hold is Hold.HIDDEN else hold
        holds: set[Hold] = {Hold.UNKNOWN if known is UNKNOWN else known}
        if others is UNKNOWN:
            holds.add(Hold.UNKNOWN)
        else:
            holds.add(others.hold)
            may_hold |= others.may_hold
            sight = replace(sight, holders=others.holders, failure=others.failure)
        if seen.life in _DEAD:
            # Somebody closes it who is not the opener: one that is not seen may not be alone.
            holds.add(Hold.UNKNOWN)
        worst = next(it for it in (Hold.YES, Hold.UNKNOWN, Hold.NO) if it in holds)
        return replace(sight, hold=worst, may_hold=may_hold)

    def last_failure(self, trail: Trail) -> str | None:
        """Why what was written must not be published, now that nobody has the file any more.

        What was seen at the last close(2) counts, and how those have ended that had the
        file then: a mapping ends with its process, and without a close(2).
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
        # A look of before may be stuck still, which is UNKNOWN at once.
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
    """The processes born since a file was opened."""

    def __init__(self, trail: Trail, file: File, births: Births, uid: int, hold: object) -> None:
        """`uid` is whose process opened it, `hold` whether that has it still."""
        self._trail = trail
        self._file = file
        self._births = births
        self._uid = uid
        self._opener_holds = hold is Hold.YES

    def look(self) -> Sight:
        """See which of them hold the file, and whether one is dying with it."""
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
        """Those that stay in execve(2) or exit(2): the one that closes the file is among them."""
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
        # The opener does not close it just now, for it has it; so a child of its does.
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
