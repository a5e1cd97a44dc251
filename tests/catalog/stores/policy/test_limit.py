"""How many requests at once, and how many bytes a second."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog.errors import NotFound
from catalog.stores.policy.bandwidth import Bandwidth, BandwidthStore, Bucket
from catalog.stores.policy.guard import GuardedStore, Operation, Request
from catalog.stores.policy.limit import Limit
from catalog.stores.policy.metrics import Count, Metrics
from tests.catalog.stores.policy.faulty import FaultyStore, Time


def test_so_many_requests_at_once() -> None:
    """The others wait their turn; a check does not."""
    far = FaultyStore()
    store = GuardedStore(far, Limit(3))
    url = far.memory.put("a", b"data")
    lock, running, most = threading.Lock(), [0], [0]
    full, go_on = threading.Event(), threading.Event()

    def count(request: Request) -> None:
        if request.operation is not Operation.STAT:
            return
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if running[0] == 3:
                full.set()
        assert go_on.wait(30)
        with lock:
            running[0] -= 1

    far.faults.during = count
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(store.stat, url) for _ in range(8)]
        assert full.wait(30)
        store.check()
        go_on.set()
        assert all(each.result().size == 4 for each in asked)
    assert most[0] == 3


def test_failed_request_gives_its_slot_back() -> None:
    """Errors do not use the limit up."""
    far = FaultyStore()
    store = GuardedStore(far, Limit(1))
    for _ in range(3):
        with pytest.raises(NotFound):
            store.stat("missing")


def test_rate(tmp_path: Path) -> None:
    """Bytes beyond the rate wait, in both directions and each for itself, staged files too."""
    time, far = Time(), FaultyStore()
    buckets = [
        Bucket(rate, clock=time.timing.clock, sleep=time.sleep) for rate in (1 << 20, 2 << 20)
    ]
    store = BandwidthStore(far, Bandwidth(*buckets))
    begun = time.now
    staged = tmp_path / "staged"
    staged.write_bytes(bytes(8 << 20))
    writer = store.writer("a")
    writer.take(staged)
    reader = store.open(writer.commit())
    assert time.now - begun == pytest.approx(4, abs=0.3)
    begun = time.now
    for offset in range(0, 4 << 20, 1 << 18):
        assert reader.read_at(offset, 1 << 18) == bytes(1 << 18)
    assert time.now - begun == pytest.approx(4, abs=0.3)


def test_pause_is_not_saved_up() -> None:
    """After an hour without a read the rate is what it was."""
    time = Time()
    bucket = Bucket(1000, clock=time.timing.clock, sleep=time.sleep)
    time.now += 3600
    begun = time.now
    for _ in range(10):
        bucket.take(500)
    assert time.now - begun == pytest.approx(5, abs=0.3)


def test_metrics() -> None:
    """Each request is counted, with its time and, if it succeeded, its bytes."""
    time, far = Time(), FaultyStore()
    metrics = Metrics(time.timing.clock)
    store = GuardedStore(far, metrics)

    def take_time(request: Request) -> None:
        time.now += request.size

    far.faults.during = take_time
    reader = store.open(far.memory.put("a", b"0123456789"))
    reader.read_at(0, 3)
    reader.read_at(8, 100)
    far.faults.planned[Operation.READ] = [NotFound("a")]
    with pytest.raises(NotFound):
        reader.read_at(0, 1)
    assert metrics.counts()[Operation.READ] == Count(
        requests=3, errors=1, bytes=5, seconds=6, slowest=3
    )
