"""The rbd store when processes die and servers hang, with a real Ceph."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from catalog.errors import Conflict, DataChanged, NotFound, StoreUnavailable
from catalog.stores.rbd.images import RbdKind, own_name
from catalog.stores.rbd.store import RbdStore
from tests.kit.stores.contract import DATA, read_all
from tests.kit.stores.rbd_pool import Pool
from tests.servers.ceph import WATCH_TIMEOUT, Ceph, ceph, paused

MIB = 1 << 20

PROGRAM = """
import os, sys
from pathlib import Path
from catalog.stores.rbd.store import RbdStore
from catalog.stores.rbd.connection import RbdStoreSettings
store = RbdStore("ceph", RbdStoreSettings(pool=sys.argv[1], conf=Path(sys.argv[2]), timeout=4))
def tell(text):
    print(text, flush=True)
"""


@pytest.fixture(scope="module", name="ceph")
def _ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A cluster of our own: what is done to it here is no other test's concern."""
    with ceph(tmp_path_factory.mktemp("ceph") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def store(pool: Pool) -> Iterator[RbdStore]:
    """A store in an empty pool."""
    store = pool.store()
    yield store
    store.close()


@contextmanager
def process(pool: Pool, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process with a `store` in the pool; killed at the end of the block."""
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program, pool.ceph.pool, str(pool.ceph.conf), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def told(running: subprocess.Popen[str]) -> str:
    """The next line of another process."""
    assert running.stdout is not None
    return running.stdout.readline().strip()


def delete_in_the_end(store: RbdStore, url: str) -> None:
    """Delete, as soon as Ceph has let go of what the dead had open."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return store.delete(url)
        except Conflict:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


# Processes that die

WRITE = """
writer = store.writer("a", 100 << 20)
for _ in range(20):
    writer.write(os.urandom(1 << 20))
tell("written")
sys.stdin.read()
"""


def test_killed_writer_leaves_nothing_visible(store: RbdStore, pool: Pool) -> None:
    """What it leaves is told as a leftover, and goes with a deletion of its key."""
    with process(pool, WRITE) as writing:
        assert told(writing) == "written"
        assert list(store.leftovers(0)) == []
    url = store.url_of("a")
    assert list(store.keys()) == []
    with pytest.raises(NotFound):
        store.open(url)
    with pytest.raises(Conflict, match="in use"):
        store.delete(url)
    delete_in_the_end(store, url)
    assert pool.names() == []
    assert not [name for name in pool.objects() if "data" in name or "header" in name]


def test_leftover_can_be_dropped(store: RbdStore, pool: Pool) -> None:
    """By the name it was told; a young one is not told, and an object is none."""
    pool.put("a", DATA)
    pool.rbd("create", f"images/{own_name('b', RbdKind.NEW)}", "--size", "1M")
    assert list(store.leftovers(3600)) == []
    (left,) = store.leftovers(0)
    store.drop_leftover(left)
    assert pool.names() == ["a"]
    store.drop_leftover(left)


REPLACE_FOR_EVER = """
import itertools
key = sys.argv[3]
for number in itertools.count():
    writer = store.writer(key)
    for _ in range(3):
        writer.write(bytes([65 + number % 26]) * 100_000)
    tell(writer.commit())
"""


def test_killed_at_any_moment(store: RbdStore, pool: Pool) -> None:
    """After a kill there is a whole object, one of those written; and it can be deleted."""
    moments = random.Random(4)
    whole = {bytes([65 + letter]) * 300_000 for letter in range(26)}
    urls = []
    for number in range(12):
        with process(pool, REPLACE_FOR_EVER, f"k{number}") as writing:
            urls.append(told(writing))
            time.sleep(moments.random() / 3)
    assert {read_all(store, url) for url in urls} <= whole
    assert sorted(store.keys()) == sorted(f"k{number}" for number in range(12))
    for url in urls:
        delete_in_the_end(store, url)
    assert pool.names() == []
    assert not [name for name in pool.objects() if "data" in name or "rbd_id" in name]


def test_replacer_died_between_two_names(store: RbdStore, pool: Pool) -> None:
    """The object has moved aside and the new one did not get its name: it is still found."""
    url = pool.put("a", DATA)
    pool.rbd("rename", "images/a", f"images/{own_name('a', RbdKind.OLD)}")
    assert read_all(store, url) == DATA
    assert store.stat(url).size == len(DATA)
    assert list(store.keys()) == ["a"]
    assert list(store.leftovers(0)) == []
    assert read_all(store, store.copy(url, "b")) == DATA
    pool.put("a", DATA[::-1])
    assert read_all(store, url) == DATA[::-1]
    store.delete(url)
    assert pool.names() == ["b"]


def test_died_in_the_middle_of_a_rename(store: RbdStore, pool: Pool) -> None:
    """RBD's own rename was cut off after the new name was made: one image, two names."""
    url = pool.put("a", DATA)
    unfinished = own_name("a", RbdKind.NEW)
    pool.rbd("rename", "images/a", f"images/{unfinished}")
    path = str(pool.ceph.folder / "id")
    pool.ceph.run("rados", "-p", "images", "get", f"rbd_id.{unfinished}", path)
    pool.ceph.run("rados", "-p", "images", "put", "rbd_id.a", path)
    assert pool.names() == [unfinished]
    assert read_all(store, url) == DATA
    assert list(store.keys()) == ["a"]
    assert list(store.leftovers(0)) == []
    store.delete(url)
    assert pool.names() == []
    assert pool.put("a", DATA) == url


SLEEP = """
reader = store.open(sys.argv[3])
tell(len(reader.read_at(0, 1000)))
sys.stdin.readline()
try:
    tell(reader.read_at(0, 1000).count(0))
except Exception as error:
    tell(type(error).__name__)
os._exit(0)
"""


def test_reader_that_slept_sees_no_zeros(store: RbdStore, pool: Pool) -> None:
    """A host that was suspended has lost its hold: what was deleted meanwhile is an error."""
    url = pool.put("a", DATA)
    with process(pool, SLEEP, url) as reading:
        assert told(reading) == "1000"
        with paused(reading.pid):
            time.sleep(WATCH_TIMEOUT)
            delete_in_the_end(store, url)
        assert reading.stdin is not None
        print(file=reading.stdin, flush=True)
        assert told(reading) in (DataChanged.__name__, StoreUnavailable.__name__)


def test_fork_makes_a_connection_of_its_own(store: RbdStore, pool: Pool) -> None:
    """A parent's connection would hang in its child."""
    url = pool.put("a", DATA)
    assert read_all(store, url) == DATA
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if read_all(store, url) == DATA else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert read_all(store, url) == DATA


def test_reader_outlives_its_store(store: RbdStore, pool: Pool) -> None:
    """`close` of the store ends the connection when the last reader is closed."""
    url = pool.put("a", DATA)
    reader = store.open(url)
    store.close()
    assert reader.read_at(0, len(DATA)) == DATA
    reader.close()


UNCLOSED = """
reader = store.open(sys.argv[3])
writer = store.writer("b")
writer.write(b"x" * 1000)
tell(len(reader.read_at(0, 1000)))
"""


def test_process_ends_with_all_open(pool: Pool) -> None:
    """Who closes nothing still ends, and in order."""
    url = pool.put("a", DATA)
    with process(pool, UNCLOSED, url) as running:
        assert told(running) == "1000"
        assert running.wait() == 0


# Servers that hang


def test_hung_osd(store: RbdStore, pool: Pool) -> None:
    """Every request ends in time, and all goes on when the OSD does."""
    url = pool.put("a", DATA)
    reader = store.open(url)
    writer = store.writer("b", 1 * MIB)
    writer.write(DATA)
    requests = [
        lambda: reader.read_at(0, 1000),
        lambda: store.open(url),
        lambda: store.stat(url),
        lambda: store.writer("c"),
        lambda: store.delete(url),
        lambda: store.copy(url, "c"),
        lambda: list(store.keys()),
        lambda: writer.commit(),
        store.check,
    ]
    with paused(pool.ceph.osd_pid), ThreadPoolExecutor(len(requests)) as threads:
        asked = [threads.submit(request) for request in requests]
        failures = [repr(each.exception()) for each in asked]
    # No failure is kept: its traceback would keep a connection, and all it holds open, alive.
    del asked
    assert [failure for failure in failures if "did not answer in time" not in failure] == []
    assert [failure for failure in failures if "StoreUnavailable" not in failure] == []
    assert reader.read_at(0, len(DATA)) == DATA
    reader.close()
    delete_in_the_end(store, url)
    delete_in_the_end(store, store.url_of("b"))
    delete_in_the_end(store, store.url_of("c"))
    assert pool.names() == []


def test_hung_cluster(pool: Pool) -> None:
    """A connection is given up in time; those who waited for it do not try one by one."""
    store = pool.store()
    with paused(pool.ceph.osd_pid, pool.ceph.mon_pid):
        started = threading.Barrier(20)

        def ask(_number: int) -> BaseException | None:
            started.wait()
            try:
                store.check()
            except StoreUnavailable as error:
                return error
            return None

        before = time.monotonic()
        with ThreadPoolExecutor(20) as threads:
            failures = list(threads.map(ask, range(20)))
        took = time.monotonic() - before
    assert all(failures)
    assert took < 20
    store.check()
    store.close()


def test_osd_that_hangs_at_any_moment(store: RbdStore, pool: Pool) -> None:
    """Whatever is half done when the OSD stops: it ends, and later all is well."""
    url = pool.put("a", DATA)
    moments = random.Random(7)

    def work() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            reader = store.open(url)
            assert reader.read_at(0, 1000) == DATA[:1000]
            reader.close()

    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            working = [threads.submit(work) for _ in range(4)]
            time.sleep(moments.random() / 2)
            with paused(pool.ceph.osd_pid):
                # Only their types: a failure's traceback keeps its connection alive.
                failures = {type(each.exception()) for each in working}
            del working
            assert failures <= {StoreUnavailable, type(None)}
    assert read_all(store, url) == DATA
    delete_in_the_end(store, url)
