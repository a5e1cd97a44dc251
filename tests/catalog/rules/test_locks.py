"""Locks: what conflicts, who may write, how they end."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from catalog.catalog import Catalog
from catalog.errors import InvalidValue, Locked, NotFound, QuotaExceeded
from catalog.model.activity import Lock, LockScope
from catalog.model.clock import now
from catalog.rules import locks
from catalog.rules.locks import LockRequest
from catalog.service.bootstrap import open_catalog
from catalog.settings import Settings


def lock(catalog: Catalog, path: str, who: str = "alice", **options: object) -> Lock:
    """Lock a path."""
    wanted = LockRequest(path, who, **options)  # type: ignore[arg-type]
    return locks.create(catalog, wanted)


def may_write(catalog: Catalog, path: str, who: str, *held: Lock, below: bool = False) -> bool:
    """Whether somebody may write who shows the tokens of these locks."""
    try:
        locks.check_write(catalog, path, who, [each.token for each in held], below=below)
    except Locked:
        return False
    return True


def paths(found: list[Lock]) -> list[str]:
    """Where the locks are."""
    return [each.path for each in found]


# -- conflicts -------------------------------------------------------------------------

EXCLUSIVE, SHARED = LockScope.EXCLUSIVE, LockScope.SHARED


@pytest.mark.parametrize(
    ("first", "deep", "second", "second_deep", "conflict"),
    [
        ("/s/a", False, "/s/a", False, True),
        ("/s/a", False, "/s/b", False, False),
        ("/s/a", True, "/s/ab", False, False),
        ("/s/a", True, "/s/A", False, False),
        ("/s", True, "/s/d/a", False, True),
        ("/s", False, "/s/a", False, False),
        ("/", True, "/s/a", False, True),
        ("/s/d/a", False, "/s", True, True),
        ("/s/d/a", False, "/s", False, False),
        ("/s/d/a", False, "/", True, True),
        ("/s/%_", False, "/s/xy", True, False),
    ],
)
@pytest.mark.parametrize("scopes", [(EXCLUSIVE, EXCLUSIVE), (EXCLUSIVE, SHARED), (SHARED, SHARED)])
def test_which_locks_conflict(
    catalog: Catalog,
    first: str,
    deep: bool,
    second: str,
    second_deep: bool,
    conflict: bool,
    scopes: tuple[LockScope, LockScope],
) -> None:
    """On one path, or under a deep one, unless both are shared; for its holder as well."""
    for one, other in (scopes, scopes[::-1]):
        held = lock(catalog, first, deep=deep, scope=one)
        if conflict and scopes != (SHARED, SHARED):
            with pytest.raises(Locked) as caught:
                lock(catalog, second, deep=second_deep, scope=other)
            assert caught.value.paths == (first,)
        else:
            locks.release(catalog, lock(catalog, second, deep=second_deep, scope=other).token)
        locks.release(catalog, held.token)


def test_one_of_many_who_lock_at_once_gets_it(catalog: Catalog) -> None:
    """The check and the row are one transaction."""
    start = threading.Barrier(8)
    got: list[str] = []

    def attempt(who: str) -> None:
        start.wait()
        try:
            lock(catalog, "/s/a", who)
        except Locked:
            return
        got.append(who)

    threads = [threading.Thread(target=attempt, args=(f"user {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert [each.principal for each in locks.at(catalog, "/s/a")] == got


# -- writing -----------------------------------------------------------------------------


def test_under_a_lock_its_holder_writes_and_shows_the_token(catalog: Catalog) -> None:
    """The token alone, or the name alone, is not enough (RFC 4918 §6.4)."""
    held = lock(catalog, "/s/d", deep=True)
    for path in ("/s/d", "/s/d/a", "/s/d/e/a"):
        assert may_write(catalog, path, "alice", held)
        assert not may_write(catalog, path, "alice")
        assert not may_write(catalog, path, "bob", held)
    assert may_write(catalog, "/s", "bob")
    assert may_write(catalog, "/s/dd", "bob")


def test_a_lock_that_is_not_deep_is_on_the_folder_only(catalog: Catalog) -> None:
    """What is inside is written by anybody."""
    lock(catalog, "/s/d")
    assert not may_write(catalog, "/s/d", "bob")
    assert may_write(catalog, "/s/d/a", "bob")


def test_one_of_several_shared_locks_is_enough(catalog: Catalog) -> None:
    """Each holder writes with the own token; others do not."""
    alice = lock(catalog, "/s/a", "alice", scope=SHARED)
    bob = lock(catalog, "/s/a", "bob", scope=SHARED)
    assert may_write(catalog, "/s/a", "alice", alice)
    assert may_write(catalog, "/s/a", "bob", bob)
    assert not may_write(catalog, "/s/a", "carol", alice)
    assert may_write(catalog, "/s", "bob", bob, below=True)
    assert not may_write(catalog, "/s", "carol", below=True)


def test_a_whole_tree_is_written_with_the_tokens_of_all_inside(catalog: Catalog) -> None:
    """Deleting a folder needs each lock below; the error names those that were missing."""
    one, two = lock(catalog, "/s/d/one"), lock(catalog, "/s/d/two")
    assert may_write(catalog, "/s/d", "alice", one, two, below=True)
    assert may_write(catalog, "/s/d", "alice")
    with pytest.raises(Locked) as caught:
        locks.check_write(catalog, "/s/d", "alice", [one.token], below=True)
    assert caught.value.paths == ("/s/d/two",)


# -- looking -----------------------------------------------------------------------------


def test_locks_above_at_and_below(catalog: Catalog) -> None:
    """Each question has its own answer."""
    for path, deep in (("/s", True), ("/s/d", False), ("/s/d/a", False)):
        lock(catalog, path, scope=SHARED, deep=deep)
    assert paths(locks.over(catalog, "/s/d/a")) == ["/s", "/s/d/a"]
    assert paths(locks.at(catalog, "/s/d")) == ["/s/d"]
    assert paths(locks.at(catalog, "/s/d", below=True)) == ["/s/d", "/s/d/a"]
    assert paths(locks.at(catalog, "/", below=True)) == ["/s", "/s/d", "/s/d/a"]


def test_a_lock_is_found_by_its_token_in_another_process(
    catalog: Catalog, settings: Settings
) -> None:
    """It is as it was granted, also after a restart."""
    held = lock(catalog, "/s/ü", owner_xml="<owner xmlns='DAV:'>ä</owner>", deep=True)
    other = open_catalog(settings)
    assert locks.find(other, held.token) == held
    with pytest.raises(Locked):
        lock(other, "/s/ü")
    other.close()
    assert locks.find(catalog, "opaquelocktoken:nonsense") is None


# -- ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "granted"),
    [(None, locks.DEFAULT_TIMEOUT), (60, 60), (10**9, locks.MAX_TIMEOUT), (0, 1), (-5, 1)],
)
def test_timeouts_are_bounded(catalog: Catalog, asked: int | None, granted: int) -> None:
    """A client that vanished never unlocks: nothing is locked for ever."""
    held = lock(catalog, "/s/a", timeout=asked)
    assert held.timeout == granted
    assert held.expires_at - held.created_at == timedelta(seconds=granted)
    assert locks.refresh(catalog, held.token, asked).timeout == granted


def expire(catalog: Catalog, held: Lock) -> None:
    """Let a lock's time be over."""
    with catalog.write() as repository:
        repository.renew_lock(held.token, held.timeout, now() - timedelta(seconds=1))


def test_an_expired_lock_is_as_good_as_gone(catalog: Catalog) -> None:
    """For every question; the next lock removes its row."""
    held = lock(catalog, "/s/a", deep=True)
    expire(catalog, held)
    assert locks.find(catalog, held.token) is None
    assert locks.over(catalog, "/s/a/b") == []
    assert may_write(catalog, "/s/a", "bob")
    with pytest.raises(NotFound):
        locks.refresh(catalog, held.token)
    new = lock(catalog, "/s/a", "bob")
    with catalog.read() as repository:
        rows = repository.connection.exec_driver_sql("SELECT token FROM locks")
        assert list(rows.scalars()) == [new.token]


def test_refreshing_lets_it_live_on(catalog: Catalog) -> None:
    """From now, not from its creation; whose lock it is stays."""
    held = lock(catalog, "/s/a", timeout=10)
    renewed = locks.refresh(catalog, held.token, 500)
    assert renewed.expires_at > held.expires_at
    assert locks.find(catalog, held.token) == renewed


def test_released_is_gone(catalog: Catalog) -> None:
    """And releasing it again is no error."""
    held = lock(catalog, "/s/a")
    locks.release(catalog, held.token)
    locks.release(catalog, held.token)
    assert may_write(catalog, "/s/a", "bob")


def test_a_deleted_tree_takes_its_locks_along(catalog: Catalog) -> None:
    """Those above it and beside it stay."""
    for path in ("/s", "/s/d", "/s/d/a", "/s/dd"):
        lock(catalog, path)
    locks.drop_tree(catalog, "/s/d")
    assert paths(locks.at(catalog, "/", below=True)) == ["/s", "/s/dd"]


def test_locks_are_limited(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each principal; one that has expired does not count."""
    monkeypatch.setattr(locks, "MAX_LOCKS", 2)
    first = lock(catalog, "/s/a")
    lock(catalog, "/s/b")
    with pytest.raises(QuotaExceeded):
        lock(catalog, "/s/c")
    lock(catalog, "/s/c", "bob")
    expire(catalog, first)
    lock(catalog, "/s/d")


def test_what_a_client_says_of_itself_is_limited(catalog: Catalog) -> None:
    """It is shown to everybody who asks for the locks."""
    lock(catalog, "/s/a", owner_xml="x" * locks.MAX_OWNER_XML)
    with pytest.raises(InvalidValue):
        lock(catalog, "/s/b", owner_xml="x" * (locks.MAX_OWNER_XML + 1))
