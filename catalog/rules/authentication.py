"""Checks a name and a password, and returns the principal.

Scope: checking passwords, limiting the pace of guesses, remembering results; rows and hashes are
in `users`.  State is in this process' memory and bounded.  Threading: any thread.

Guessing is slow, and it locks nobody out:

- A password that was right before is accepted at once, even while others guess.
- A password that was wrong before is refused at once, so that a program with an old password
  costs one check and counts as one failure.
- After a few wrong passwords for one user from one address, further passwords for this user from
  this address are checked one after the other, a few per second.  A request waits for its turn.
  It is refused without a check only when too many requests wait already.
- Hashing is expensive: one address has one password hashed at a time, and all addresses together
  have a few.
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
from catalog.rules.users import hash_password, is_password

REMEMBERED = 86_400.0
"""Seconds after its last use in which a right password is accepted without hashing (50 ms)."""
WRONG_REMEMBERED = 60.0
"""Seconds in which a wrong password is refused without hashing."""
FREE_FAILURES = 3
"""Wrong passwords before the pace is limited, as people mistype."""
PACE = 0.2
"""Seconds between two checks for a user and an address with failures."""
LONGEST_WAIT = 2.0
"""Seconds that a request waits for its turn at most; a request with a later turn is refused."""
FORGIVEN_AFTER = 900.0
"""Seconds without a failure after which counting starts anew."""
_ENTRIES = 10_000
"""Entries that are remembered of each kind; a guesser needs minutes of hashing to push one out."""
_CHECKS = 4
"""Hashes computed at the same time, so that guessers use up neither memory nor processors."""
_LONGEST_QUEUE = 10.0
"""Seconds that a password waits to be hashed; then the request is refused."""

_Kept = TypeVar("_Kept")


@dataclass(slots=True)
class _Failures:
    """Wrong passwords for one user from one address."""

    count: int = 0
    last: float = 0.0
    """The time of the last failure, by the clock of `Authenticator`."""
    next_turn: float = 0.0
    """The earliest time of the next check."""


@dataclass(slots=True)
class _Door:
    """The lock of one address, for one check at a time, and how many requests use it."""

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
        """Takes as long as one check.  `clock` returns seconds, `sleep` waits for some."""
        self._catalog = catalog
        self._clock = clock
        self._sleep = sleep
        self._secret = secrets.token_bytes(32)
        # Used when there is no such user: the check then takes as long, and its time does not
        # show which names exist.
        self._nobody = hash_password(secrets.token_hex())
        self._lock = threading.Lock()
        self._checks = threading.BoundedSemaphore(_CHECKS)
        self._doors: dict[str, _Door] = {}
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()
        # Two tables: the entries of guessers cannot push out those of users.
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[bytes, float] = OrderedDict()

    def authenticate(self, name: str, password: str, address: str) -> Principal:
        """The principal with this name and password; `address` is the client's address.

        Waits up to LONGEST_WAIT for a turn.  Raises NotAuthenticated and TooManyAttempts, in
        the same way whether the user exists or not.
        """
        with self._catalog.read() as repository:
            user = repository.user(name)
        # The hash is part of it: after a change of the password, earlier results do not count.
        attempt = self._digest(name, user.password_hash if user else "", password)
        if self._knows(attempt, name) and user is not None:
            return user.principal
        pair = self._digest(name, address)
        self._wait_for_turn(name, pair)
        with self._one_of(address, name):
            # Again, as another request may have checked the same password while this one waited:
            # of many requests that begin together only the first is hashed.
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
        """Wait for the next turn of this pair of a user and an address.

        A request that is refused waits as well: otherwise a guesser could come back at once
        and take every turn that becomes free.
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
        """Be the only request of an address that hashes a password.  Raises TooManyAttempts."""
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
        """A short key for the parts, from which nobody who reads this memory learns them."""
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
    """Remember a value as the newest; drop the oldest one if there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _ENTRIES:
        kept.popitem(last=False)
