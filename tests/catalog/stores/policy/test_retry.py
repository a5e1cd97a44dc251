"""What is asked again, when, and what never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import (
    CatalogError,
    DataChanged,
    Forbidden,
    NotFound,
    StoreBusy,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.policy.guard import Operation
from catalog.stores.policy.retry import Retry, RetryStore, Timing
from tests.catalog.stores.policy.faulty import FaultyStore, Time

GONE = StoreUnavailable("far", "connection reset")


@pytest.fixture
def time() -> Time:
    """Time that passes only by sleeping."""
    return Time()


@pytest.fixture
def far() -> FaultyStore:
    """A store that will fail."""
    return FaultyStore()


@pytest.fixture
def store(far: FaultyStore, time: Time) -> RetryStore:
    """It, with retries: five attempts within a minute."""
    return RetryStore(far, Retry(5, 60, time.timing))


def test_read_goes_on_where_it_broke(far: FaultyStore, store: RetryStore, time: Time) -> None:
    """Only the range that failed is asked again, after waits that double."""
    reader = store.open(far.memory.put("a", b"0123456789"))
    far.faults.planned[Operation.READ] = [None, GONE, GONE, GONE]
    assert b"".join([reader.read_at(0, 5), reader.read_at(5, 5)]) == b"0123456789"
    assert far.faults.count(Operation.READ) == 5
    assert time.slept == [0.2, 0.4, 0.8]


def test_waits_are_jittered_and_bounded() -> None:
    """Each wait is anywhere between nothing and its bound, and none is longer than 10 s."""
    slept: list[float] = []
    chances = iter([0.0, 0.999] * 10)
    retry = Retry(13, 1e9, Timing(lambda: 0.0, slept.append, lambda: next(chances)))
    with pytest.raises(StoreUnavailable):
        retry.repeat(_raise(GONE))
    assert slept[0::2] == [0] * 6
    assert sorted(slept[1::2]) == slept[1::2]
    assert max(slept) < 10


@pytest.mark.parametrize(
    "error",
    [NotFound("a"), Forbidden("a"), DataChanged("a"), StoreFull("a")],
    ids=repr,
)
def test_what_does_not_pass_is_not_asked_again(
    far: FaultyStore, store: RetryStore, error: CatalogError
) -> None:
    """Waiting does not help against these."""
    far.faults.always[Operation.STAT] = error
    with pytest.raises(type(error)):
        store.stat("a")
    assert far.faults.count(Operation.STAT) == 1


def test_refusal_is_asked_about_once_more(far: FaultyStore, store: RetryStore, time: Time) -> None:
    """Credentials may just be changed; what stays refused keeps nobody waiting for long."""
    url = far.memory.put("a", b"data")
    far.faults.planned[Operation.STAT] = [StoreRefused("far")]
    assert store.stat(url).size == 4
    far.faults.always[Operation.STAT] = StoreRefused("far")
    with pytest.raises(StoreRefused):
        store.stat(url)
    assert far.faults.count(Operation.STAT) == 4
    assert sum(time.slept) < 1


def test_gives_up_after_its_attempts(far: FaultyStore, store: RetryStore) -> None:
    """The last failure is what the caller sees."""
    far.faults.always[Operation.OPEN] = GONE
    with pytest.raises(StoreUnavailable, match="connection reset"):
        store.open("a")
    assert far.faults.count(Operation.OPEN) == 5


def test_deadline_leaves_one_more_attempt(far: FaultyStore, store: RetryStore, time: Time) -> None:
    """A connection that stalled longer than the deadline is tried anew, once."""

    def stall(_request: object) -> None:
        time.now += 100

    far.faults.during = stall
    far.faults.planned[Operation.STAT] = [GONE]
    url = far.memory.put("a", b"data")
    assert store.stat(url).size == 4
    far.faults.always[Operation.STAT] = GONE
    with pytest.raises(StoreUnavailable):
        store.stat(url)
    assert far.faults.count(Operation.STAT) == 4


def test_busy_store_is_given_its_time(far: FaultyStore, store: RetryStore, time: Time) -> None:
    """Retry-After is a lower bound of the wait; one beyond the deadline is not waited for."""
    url = far.memory.put("a", b"data")
    far.faults.planned[Operation.STAT] = [StoreBusy("far", retry_after=7)]
    assert store.stat(url).size == 4
    assert time.slept == [7.2]
    far.faults.planned[Operation.STAT] = [StoreBusy("far", retry_after=3600)]
    with pytest.raises(StoreBusy):
        store.stat(url)


def test_check_asks_once(far: FaultyStore, store: RetryStore) -> None:
    """`check` tells of now."""
    far.faults.planned[Operation.CHECK] = [GONE]
    with pytest.raises(StoreUnavailable):
        store.check()


def test_blocks_are_not_written_twice(far: FaultyStore, store: RetryStore) -> None:
    """Nobody knows how much of a block that failed has arrived."""
    far.faults.planned[Operation.WRITE] = [GONE, None]
    far.faults.planned[Operation.COMMIT] = [GONE]
    writer = store.writer("a")
    with pytest.raises(StoreUnavailable):
        writer.write(b"data")
    writer.cancel()
    writer = store.writer("a")
    writer.write(b"data")
    with pytest.raises(StoreUnavailable):
        writer.commit()
    writer.cancel()
    assert list(store.keys()) == []


@pytest.mark.parametrize("fails", [Operation.WRITER, Operation.TAKE, Operation.COMMIT])
def test_staged_file_is_sent_again(
    far: FaultyStore, store: RetryStore, tmp_path: Path, fails: Operation
) -> None:
    """Whatever broke, a new writer begins with the whole file."""
    staged = tmp_path / "staged"
    staged.write_bytes(b"0123456789")
    far.faults.planned[fails] = [GONE, GONE]
    writer = store.writer("a")
    writer.take(staged)
    url = writer.commit()
    assert store.open(url).read_at(0, 100) == b"0123456789"
    writer.cancel()


def test_cancelled_while_broken_leaves_nothing(
    far: FaultyStore, store: RetryStore, tmp_path: Path
) -> None:
    """An upload that failed for good is no object."""
    staged = tmp_path / "staged"
    staged.write_bytes(b"data")
    far.faults.always[Operation.COMMIT] = GONE
    writer = store.writer("a")
    writer.take(staged)
    with pytest.raises(StoreUnavailable):
        writer.commit()
    writer.cancel()
    assert far.faults.count(Operation.COMMIT) == 5
    assert list(store.keys()) == []


def _raise(error: CatalogError):
    def work() -> None:
        raise error

    return work
