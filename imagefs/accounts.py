"""Names and numbers of this host's users, as requests need them.

The user database (NSS) may be on a server, and a dead one keeps whoever asks waiting for minutes.
So it is asked by threads of its own (`looks`), answers are remembered, and while it is silent what
was remembered goes on to count.  Threading: any thread.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable
from typing import TypeVar, cast

from catalog.errors import CatalogUnavailable
from catalog.service.host_users import name_of_uid
from imagefs.looks import UNKNOWN, Looks

Answer = TypeVar("Answer", str, tuple[int, int])

_DEADLINE = 1.0
"""Seconds the user database has to answer."""
_FRESH = 60.0
"""Seconds until an answer is asked for anew."""
_SILENT = 10.0
"""Seconds in which a database that did not answer is not asked again."""
_MOST = 10_000
"""Answers that are remembered."""


class Accounts:
    """What the user database has answered."""

    def __init__(self, deadline: float = _DEADLINE, fresh: float = _FRESH) -> None:
        self._looks = Looks()
        self._deadline = deadline
        self._fresh = fresh
        self._answers: dict[int | str, tuple[str | tuple[int, int], float]] = {}
        self._ask_after = 0.0

    def name(self, uid: int) -> str:
        """A user's name; the number of one who has none.

        Raises CatalogUnavailable when it cannot be told: an image must not get another owner.
        """
        found = self._answer(uid, lambda: name_of_uid(uid))
        if found is None:
            raise CatalogUnavailable(f"uid {uid}", "the host's user database does not answer")
        return found

    def ids(self, owner: str) -> tuple[int, int]:
        """The host's ids of an owner; an owner the host does not know is its administrator's."""
        return self._answer(owner, lambda: _ids(owner)) or _ids_of_unknown(owner)

    def _answer(self, key: int | str, ask: Callable[[], Answer]) -> Answer | None:
        known, until = self._answers.get(key, (None, 0.0))
        now = time.monotonic()
        if now < until or now < self._ask_after:
            return cast("Answer | None", known)

        def work() -> Answer:
            answer = ask()
            if len(self._answers) >= _MOST:
                self._answers.clear()
            # Here, as it may come when nobody waits for it any more.
            self._answers[key] = answer, time.monotonic() + self._fresh
            return answer

        found = self._looks.ask(key, work, self._deadline)
        if found is UNKNOWN:
            self._ask_after = time.monotonic() + _SILENT
            return cast("Answer | None", known)
        return found


def _ids(owner: str) -> tuple[int, int]:
    try:
        found = pwd.getpwnam(owner)
    except KeyError:
        return _ids_of_unknown(owner)
    return found.pw_uid, found.pw_gid


def _ids_of_unknown(owner: str) -> tuple[int, int]:
    return int(owner) if owner.isdecimal() else os.geteuid(), os.getegid()


ACCOUNTS = Accounts()
"""Those of this process, as the database is the host's."""
