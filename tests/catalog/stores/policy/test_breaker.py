"""A store that is down costs one failure, and is noticed when it is back."""

from __future__ import annotations

import pytest

from catalog.errors import DataChanged, NotFound, StoreRefused, StoreUnavailable
from catalog.stores.policy.breaker import Breaker, BreakerStore, Circuit
from catalog.stores.policy.guard import Operation
from tests.catalog.stores.policy.faulty import FaultyStore, Time

DOWN = StoreUnavailable("far", "timed out")
PAUSE = 5.0


@pytest.fixture
def time() -> Time:
    """Time that the test moves."""
    return Time()


@pytest.fixture
def far() -> FaultyStore:
    """A store that will fail."""
    return FaultyStore()


@pytest.fixture
def store(far: FaultyStore, time: Time) -> BreakerStore:
    """It, behind a breaker."""
    return BreakerStore(far, Breaker(far, PAUSE, time.timing.clock))


def go_down(far: FaultyStore) -> None:
    """From now on nothing is answered."""
    for operation in (Operation.CHECK, Operation.STAT, Operation.READ):
        far.faults.always[operation] = DOWN


def test_down_costs_one_failure(far: FaultyStore, store: BreakerStore) -> None:
    """After the first that failed the others fail at once, with its reason."""
    url = far.memory.put("a", b"data")
    go_down(far)
    for _ in range(10):
        with pytest.raises(StoreUnavailable, match="timed out"):
            store.stat(url)
    assert far.faults.count(Operation.STAT) == 1
    assert far.faults.count(Operation.CHECK) == 1
    assert store.circuit(url) is Circuit.OPEN


def test_back_after_a_pause(far: FaultyStore, store: BreakerStore, time: Time) -> None:
    """A check goes ahead of the next request; when it is answered all is as before."""
    url = far.memory.put("a", b"data")
    go_down(far)
    with pytest.raises(StoreUnavailable):
        store.stat(url)
    far.faults.always.clear()
    with pytest.raises(StoreUnavailable, match="asked again in 5 s"):
        store.stat(url)
    time.now += PAUSE
    assert store.circuit(url) is Circuit.HALF_OPEN
    assert store.stat(url).size == 4
    assert store.circuit(url) is Circuit.CLOSED


def test_pauses_grow(far: FaultyStore, store: BreakerStore, time: Time) -> None:
    """Each time it is still down it is left alone for twice as long, up to 16 times."""
    go_down(far)
    for pause in (5, 10, 20, 40, 80, 80):
        with pytest.raises(StoreUnavailable):
            store.stat("a")
        time.now += pause - 0.5
        assert store.circuit("a") is Circuit.OPEN
        time.now += 0.5
        assert store.circuit("a") is Circuit.HALF_OPEN
    assert far.faults.count(Operation.STAT) == 1
    assert far.faults.count(Operation.CHECK) == 6


def test_one_goes_ahead(far: FaultyStore, store: BreakerStore, time: Time) -> None:
    """While one request tries a store that was down, the others still fail at once."""
    url = far.memory.put("a", b"data")
    go_down(far)
    with pytest.raises(StoreUnavailable):
        store.stat(url)
    far.faults.always.clear()
    time.now += PAUSE
    seen = []

    def another(request: object) -> None:
        far.faults.during = lambda request: None
        seen.append(store.circuit(url))
        with pytest.raises(StoreUnavailable):
            store.stat(url)

    far.faults.during = another
    assert store.stat(url).size == 4
    assert seen == [Circuit.OPEN]


def test_broken_object_is_no_broken_store(far: FaultyStore, store: BreakerStore) -> None:
    """What fails while the store answers its check is held against nothing else."""
    far.faults.always[Operation.READ] = DOWN
    reader = store.open(far.memory.put("a", b"data"))
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            reader.read_at(0, 1)
    assert far.faults.count(Operation.READ) == 3
    assert store.circuit("a") is Circuit.CLOSED


@pytest.mark.parametrize("answer", [NotFound("a"), DataChanged("a")], ids=repr)
def test_refusal_is_an_answer(
    far: FaultyStore, store: BreakerStore, answer: NotFound | DataChanged
) -> None:
    """A store that says no is up."""
    far.faults.always[Operation.STAT] = answer
    with pytest.raises(type(answer)):
        store.stat("a")
    assert store.circuit("a") is Circuit.CLOSED
    assert far.faults.count(Operation.CHECK) == 0


def test_refusing_server_is_asked_once_a_pause(
    far: FaultyStore, store: BreakerStore, time: Time
) -> None:
    """Bad credentials are not tried at each read, nor left for longer once they are mended."""
    refused = StoreRefused("far", "not these credentials")
    for operation in (Operation.CHECK, Operation.STAT):
        far.faults.always[operation] = refused
    for _pause in range(5):
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="not these credentials"):
                store.stat("a")
        time.now += PAUSE
    assert far.faults.count(Operation.STAT) == 1
    assert far.faults.count(Operation.CHECK) == 5
    far.faults.always.clear()
    with pytest.raises(NotFound):
        store.stat("a")


def test_refusal_of_one_url_says_nothing_of_its_server(time: Time) -> None:
    """A web server that forbids one image, or ignores its ranges, may serve the next."""
    far = FaultyStore(external=True)
    store = BreakerStore(far, Breaker(far, PAUSE, time.timing.clock))
    far.faults.planned[Operation.STAT] = [StoreRefused("http://one.example/a")]
    with pytest.raises(StoreRefused):
        store.stat("http://one.example/a")
    assert store.circuit("http://one.example/b") is Circuit.CLOSED


def test_check_is_always_let_through(far: FaultyStore, store: BreakerStore) -> None:
    """`imagefs doctor` sees how it is now, and what it sees counts."""
    go_down(far)
    with pytest.raises(StoreUnavailable):
        store.stat("a")
    far.faults.always.clear()
    store.check()
    assert store.circuit("a") is Circuit.CLOSED


def test_interruption_says_nothing(far: FaultyStore, store: BreakerStore, time: Time) -> None:
    """Ctrl-C in the request that goes ahead lets another go ahead."""
    url = far.memory.put("a", b"data")
    go_down(far)
    with pytest.raises(StoreUnavailable):
        store.stat(url)
    far.faults.always.clear()
    time.now += PAUSE
    far.faults.planned[Operation.STAT] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        store.stat(url)
    assert store.stat(url).size == 4


def test_each_server_of_an_external_store(time: Time) -> None:
    """One web server that is down stops no other."""
    far = FaultyStore(external=True)
    store = BreakerStore(far, Breaker(far, PAUSE, time.timing.clock))
    far.faults.planned[Operation.STAT] = [DOWN]
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="timed out"):
            store.stat("http://one.example/a")
    assert store.circuit("http://one.example/b") is Circuit.OPEN
    assert store.circuit("http://two.example/a") is Circuit.CLOSED
    with pytest.raises(NotFound):
        store.stat("http://two.example/a")
    time.now += PAUSE
    with pytest.raises(NotFound):
        store.stat("http://one.example/a")
    assert store.circuit("http://one.example/a") is Circuit.CLOSED
