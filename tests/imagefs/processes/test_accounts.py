"""A user database that does not answer (NSS, LDAP) is waited for once, and shortly."""

from __future__ import annotations

import os
import pwd
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from catalog.errors import CatalogUnavailable
from imagefs.processes.accounts import Accounts
from tests.kit.daemon import wait_until


class Database:
    """One that answers while it is up; it counts who asks."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.up.set()
        self.asked = 0

    def find(self, of: object) -> SimpleNamespace:
        """Stands for getpwuid and getpwnam."""
        self.asked += 1
        self.up.wait()
        if of in ("nobody-s", 4711):
            raise KeyError(of)
        return SimpleNamespace(pw_name=f"user{of}", pw_uid=1000, pw_gid=100)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The user database of this test."""
    made = Database()
    monkeypatch.setattr(pwd, "getpwuid", made.find)
    monkeypatch.setattr(pwd, "getpwnam", made.find)
    yield made
    made.up.set()


def test_answers_are_remembered(database: Database) -> None:
    """Also that there is no such user: a number is its own name, an owner the administrator's."""
    accounts = Accounts()
    for _ in range(3):
        assert accounts.name(1) == "user1"
        assert accounts.name(4711) == "4711"
        assert accounts.ids("alice") == (1000, 100)
        assert accounts.ids("nobody-s") == (os.geteuid(), os.getegid())
    assert database.asked == 4


def test_a_silent_database(database: Database) -> None:
    """What was remembered counts; who is not known is refused, and nobody asks again soon."""
    accounts = Accounts(deadline=0.05, fresh=0.0)
    assert accounts.name(1) == "user1"
    database.up.clear()
    asked = database.asked
    assert accounts.name(1) == "user1"
    for uid in range(2, 50):
        with pytest.raises(CatalogUnavailable, match="user database does not answer"):
            accounts.name(uid)
    assert accounts.ids("alice") == (os.geteuid(), os.getegid())
    assert database.asked == asked + 1


def test_an_answer_that_comes_late(database: Database) -> None:
    """It is remembered although nobody waits for it any more."""
    accounts = Accounts(deadline=0.05)
    database.up.clear()
    with pytest.raises(CatalogUnavailable):
        accounts.name(1)
    database.up.set()

    def is_known() -> bool:
        try:
            return accounts.name(1) == "user1"
        except CatalogUnavailable:
            return False

    wait_until(is_known, "the answer has come")
