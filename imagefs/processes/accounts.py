"""Names and numbers of this host's users, for requests.

The user database (NSS) may be on a server, and if that does not answer a query takes minutes.  So
threads of its own query it (`looks`), and answers are remembered.  While the database does not
answer, older answers are used.  Threading: any thread.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable
from typing import TypeVar, cast

from catalog.errors import CatalogUnavailable
from catalog.service.host_users import name_of_uid
from imagefs.processes.looks import UNKNOWN, Looks

Answer = TypeVar("Answer", str, tuple[int, int])

_DEADLINE = 1.0
"""Seconds in which the user database has to answer."""
_FRESH = 60.0
"""Seconds for which an answer is used without a new query."""
_SILENT = 10.0
"""Seconds for which a database that did not answer is not queried again."""
_MOST = 10_000
"""Answers that are remembered."""


class Accounts:
    """Answers of the user database."""

    def __init__(self, deadline: float = _DEADLINE, fresh: float = _FRESH) -> None:
        self._looks = Looks()
        self._deadline = deadline
        self._fresh = fresh
        self._answers: dict[int | str, tuple[str | tuple[int, int], float]] = {}
        self._ask_after = 0.0

    def name(self, uid: int) -> str:
        """A user's name; for a user without a name, the number.

        Raises CatalogUnavailable if the database does not answer: with a wrong name an image
        would get a wrong owner.
        """
        found = self._answer(uid, lambda: name_of_uid(uid))
        if found is None:
            raise CatalogUnavailable(f"uid {uid}", "the host's user database does not answer")
        return found

    def ids(self, owner: str) -> tuple[int, int]:
        """The host's ids of an owner; those of the mount's user for an owner it does not know."""
        return self._answer(owner, lambda: _ids(owner)) or _ids_of_unknown(owner)

    def known_name(self, uid: int) -> str | None:
        """As `name`, without waiting; None if the user database has to be asked."""
        return cast("str | None", self._remembered(uid))

    def knows(self, owner: str) -> bool:
        """Whether `ids` answers without waiting."""
        return self._remembered(owner) is not None

    def _remembered(self, key: int | str) -> str | tuple[int, int] | None:
        known, until = self._answers.get(key, (None, 0.0))
        return known if time.monotonic() < until else None

    def _answer(self, key: int | str, ask: Callable[[], Answer]) -> Answer | None:
        known, until = self._answers.get(key, (None, 0.0))
        now = time.monotonic()
        if now < until or now < self._ask_after:
            return cast("Answer | None", known)

        def work() -> Answer:
            answer = ask()
            if len(self._answers) >= _MOST:
                self._answers.clear()
            # Remembered here and not by the caller, which may have given up by now.
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
"""One for the whole process, as a host has one user database."""
