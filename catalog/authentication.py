"""Who is it?  A name and a password become a principal.

Users: frontends whose callers log in, one `Authenticator` a process.  Scope: the check, its
pace, and what is remembered of it; rows and hashes are in `users`.  State is in this
process' memory and bounded.  Threading: any thread.

Guessing is slowed down for each user and address: after a few wrong passwords a further
attempt is refused, without being looked at, until a delay is over that doubles each
time.  Nothing sleeps: a guesser occupies no thread.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic
from typing import TypeVar

from catalog.access import Principal, User
from catalog.catalog import Catalog
from catalog.errors import NotAuthenticated, TooManyAttempts
from catalog.users import hash_password, is_password

REMEMBERED = 60.0
"""Seconds a right password is known again without 50 ms of hashing."""
FREE_FAILURES = 3
"""Wrong passwords before the first delay: people mistype."""
LONGEST_DELAY = 60.0
"""Seconds between two attempts, at most."""
FORGIVEN_AFTER = 900.0
"""Seconds without a failure after which counting starts anew."""
_ENTRIES = 10_000
"""What is kept of users and addresses; a guesser needs minutes of hashing to push one out."""
_CHECKS = 4
"""Checks at the same time, so that guessers fill neither memory nor all processors."""

_Kept = TypeVar("_Kept")


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0
    """When, on the monotonic clock."""

    @property
    def delay(self) -> float:
        """Seconds from the last failure until the next attempt."""
        beyond = self.count - FREE_FAILURES
        return 0.0 if beyond < 0 else min(2.0 ** min(beyond, 16), LONGEST_DELAY)


class Authenticator:
    """Checks passwords of the catalog's users."""

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = monotonic) -> None:
        """Takes as long as one check.  `clock` counts seconds."""
        self._catalog = catalog
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        # Checked when there is no such user, so that a guess at names costs the same.
        self._nobody = hash_password(secrets.token_hex())
        self._lock = threading.Lock()
        # One attempt of a user at an address waits for the other: of many requests that
        # begin together only the first is hashed.
        self._checks = [threading.Lock() for _ in range(_CHECKS)]
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def authenticate(self, name: str, password: str, address: str) -> Principal:
        """Who has this name and password; `address` is where the attempt comes from.

        Raises NotAuthenticated and TooManyAttempts, of users that exist and others alike.
        """
        with self._catalog.read() as repository:
            user = repository.user(name)
        # With the hash in it: another password, or another user, is not known any more.
        known = self._digest(user.password_hash if user else "", password)
        if user is not None and self._is_known(known):
            return user.principal
        key = self._digest(name, address)
        with self._checks[key[0] % _CHECKS]:
            if user is not None and self._is_known(known):
                return user.principal
            self._check_pace(name, key)
            return self._check(name, user, password, key, known)

    def _check(
        self, name: str, user: User | None, password: str, key: bytes, known: bytes
    ) -> Principal:
        right = is_password(user.password_hash if user else self._nobody, password)
        if user is None or not right:
            self._note_failure(key)
            raise NotAuthenticated(name)
        with self._lock:
            self._failures.pop(key, None)
            _keep(self._known, known, self._clock() + REMEMBERED)
        return user.principal

    def _is_known(self, known: bytes) -> bool:
        with self._lock:
            return self._known.get(known, 0.0) > self._clock()

    def _check_pace(self, name: str, key: bytes) -> None:
        with self._lock:
            failures = self._failures.get(key)
            wait = failures.last + failures.delay - self._clock() if failures else 0.0
        if wait > 0:
            raise TooManyAttempts(name, ceil(wait))

    def _note_failure(self, key: bytes) -> None:
        with self._lock:
            now = self._clock()
            failures = self._failures.get(key)
            if failures is None or now - failures.last > FORGIVEN_AFTER:
                failures = _Failures()
            failures.count += 1
            failures.last = now
            _keep(self._failures, key, failures)

    def _digest(self, one: str, other: str) -> bytes:
        """A short name for the pair, that tells nothing to who reads this memory."""
        text = f"{len(one)}:{one}{other}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).digest()


def _keep(kept: OrderedDict[bytes, _Kept], key: bytes, value: _Kept) -> None:
    """Remember a value as the newest; the oldest is forgotten when there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _ENTRIES:
        kept.popitem(last=False)
