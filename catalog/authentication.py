"""Who is it?  A name and a password become a principal.

Scope: the check, its pace, and what is remembered of it; rows and hashes are in `users`.  State
is in this process' memory and bounded.  Threading: any thread.

Guessing is slow, and nobody is locked out by it:

- What was right is known again at once, whoever guesses meanwhile, and from wherever.
- What was wrong is refused again at once.  A program with an old password costs and counts once.
- After a few wrong passwords for a user from an address, further ones for this user from this
  address are looked at one after the other, a few in a second.  Who comes waits for its turn; it
  is refused, and not looked at, only when too many wait already.
- One address has one password looked at at a time, all together a few: hashing is expensive.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from catalog.catalog import Catalog
from catalog.errors import NotAuthenticated, TooManyAttempts
from catalog.model.access import Principal, User
from catalog.users import hash_password, is_password

REMEMBERED = 86_400.0
"""Seconds since its last use that a right password is known again without 50 ms of hashing."""
WRONG_REMEMBERED = 60.0
"""Seconds that a wrong password is known again."""
FREE_FAILURES = 3
"""Wrong passwords before there is a pace: people mistype."""
PACE = 0.2
"""Seconds between two passwords that are looked at, for a user and address with failures."""
LONGEST_WAIT = 2.0
"""Seconds that somebody waits for a turn: so many turns are given out ahead."""
FORGIVEN_AFTER = 900.0
"""Seconds without a failure after which counting starts anew."""
_ENTRIES = 10_000
"""What is kept of each kind; a guesser needs minutes of hashing to push one out."""
_CHECKS = 4
"""Checks at the same time, so that guessers fill neither memory nor all processors."""
_LONGEST_QUEUE = 10.0
"""Seconds that a password waits to be hashed."""

_Kept = TypeVar("_Kept")


@dataclass(slots=True)
class _Failures:
    """Wrong passwords for one user from one address."""

    count: int = 0
    last: float = 0.0
    """When, on the clock."""
    next_turn: float = 0.0
    """When the next password may be looked at."""


@dataclass(slots=True)
class _Door:
    """One address: one goes in at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class Authenticator:
    """Checks passwords of the catalog's users."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Takes as long as one check.  `clock` counts seconds, `sleep` waits for some."""
        self._catalog = catalog
        self._clock = clock
        self._sleep = sleep
        self._secret = secrets.token_bytes(32)
        # Checked when there is no such user, so that a guess at names costs the same.
        self._nobody = hash_password(secrets.token_hex())
        self._lock = threading.Lock()
        self._checks = threading.BoundedSemaphore(_CHECKS)
        self._doors: dict[str, _Door] = {}
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()
        # Apart: what guessers fill pushes out nothing that users have made.
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[bytes, float] = OrderedDict()

    def authenticate(self, name: str, password: str, address: str) -> Principal:
        """Who has this name and password; `address` is where the attempt comes from.

        Waits up to LONGEST_WAIT for a turn.  Raises NotAuthenticated and TooManyAttempts, of
        users that exist and others alike.
        """
        with self._catalog.read() as repository:
            user = repository.user(name)
        # With the hash in it: what was right or wrong before a change says nothing after it.
        attempt = self._digest(name, user.password_hash if user else "", password)
        if self._knows(attempt, name) and user is not None:
            return user.principal
        pair = self._digest(name, address)
        self._wait_for_turn(name, pair)
        with self._one_of(address, name):
            # Of many requests that begin together only the first is hashed.
            if self._knows(attempt, name) and user is not None:
                return user.principal
            return self._check(name, user, password, pair, attempt)

    def _check(
        self, name: str, user: User | None, password: str, pair: bytes, attempt: bytes
    ) -> Principal:
        right = is_password(user.password_hash if user else self._nobody, password)
        if user is None or not right:
            self._note_failure(pair, attempt)
            raise NotAuthenticated(name)
        with self._lock:
            self._failures.pop(pair, None)
            _keep(self._right, attempt, self._clock() + REMEMBERED)
        return user.principal

    def _knows(self, attempt: bytes, name: str) -> bool:
        """Whether the attempt is known to be right; raises NotAuthenticated if it is wrong."""
        with self._lock:
            now = self._clock()
            if self._wrong.get(attempt, 0.0) > now:
                raise NotAuthenticated(name)
            if self._right.get(attempt, 0.0) <= now:
                return False
            _keep(self._right, attempt, now + REMEMBERED)
            return True

    def _wait_for_turn(self, name: str, pair: bytes) -> None:
        """Wait until the next password for the pair may be looked at.

        Who is refused has waited as well: a guesser that came back at once would take each turn
        that becomes free.
        """
        with self._lock:
            now = self._clock()
            failures = self._failures.get(pair)
            if failures is None or failures.count < FREE_FAILURES:
                return
            if now - failures.last > FORGIVEN_AFTER:
                return
            wait = max(failures.next_turn - now, 0.0)
            has_turn = wait <= LONGEST_WAIT
            if has_turn:
                failures.next_turn = now + wait + PACE
        if wait:
            self._sleep(min(wait, LONGEST_WAIT))
        if not has_turn:
            raise TooManyAttempts(name, 1)

    @contextmanager
    def _one_of(self, address: str, name: str) -> Iterator[None]:
        """Be the only one of an address whose password is hashed.  Raises TooManyAttempts."""
        with self._lock:
            door = self._doors.setdefault(address, _Door())
            door.users += 1
        try:
            with _held(door.lock, name), _held(self._checks, name):
                yield
        finally:
            with self._lock:
                door.users -= 1
                if not door.users:
                    del self._doors[address]

    def _note_failure(self, pair: bytes, attempt: bytes) -> None:
        with self._lock:
            now = self._clock()
            failures = self._failures.get(pair)
            if failures is None or now - failures.last > FORGIVEN_AFTER:
                failures = _Failures()
            failures.count += 1
            failures.last = now
            failures.next_turn = max(failures.next_turn, now + PACE)
            _keep(self._failures, pair, failures)
            _keep(self._wrong, attempt, now + WRONG_REMEMBERED)

    def _digest(self, *parts: str) -> bytes:
        """A short name for the parts, that tells nothing to who reads this memory."""
        text = "".join(f"{len(part)}:{part}" for part in parts).encode()
        return hmac.new(self._secret, text, hashlib.sha256).digest()


@contextmanager
def _held(lock: threading.Lock | threading.Semaphore, name: str) -> Iterator[None]:
    if not lock.acquire(timeout=_LONGEST_QUEUE):
        raise TooManyAttempts(name, 1)
    try:
        yield
    finally:
        lock.release()


def _keep(kept: OrderedDict[bytes, _Kept], key: bytes, value: _Kept) -> None:
    """Remember a value as the newest; the oldest is forgotten when there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _ENTRIES:
        kept.popitem(last=False)
