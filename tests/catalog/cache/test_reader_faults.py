"""A real web server behind a proxy that breaks its answers: read through policy and cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from catalog.cache.reader import CachedReader
from catalog.cache.sources import Copy
from catalog.errors import StoreUnavailable
from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http.store import HttpStore
from catalog.stores.policy.remote import RemoteStore
from catalog.stores.policy.retry import Timing
from catalog.stores.policy.settings import PolicySettings
from tests.catalog.cache.remote import CHUNK, chunks_of, some_data
from tests.servers.network.breaking_proxy import (
    Fault,
    Plan,
    Proxy,
    Request,
    always,
    every,
    never,
    proxy,
)
from tests.servers.nginx import nginx

DATA = some_data(60 * CHUNK + 777)


def storm(request: Request) -> Fault | None:
    """Five requests in a row fail, then five do not."""
    return Fault(status=(500, 503)[request.number % 2]) if request.number // 5 % 2 else None


def corrupted_once() -> Plan:
    """The first answer that begins at an offset has a wrong byte."""
    seen: set[str] = set()

    def plan(request: Request) -> Fault | None:
        start = request.headers["range"].partition("-")[0]
        is_new = start not in seen
        seen.add(start)
        return Fault(corrupt=20_000) if is_new else None

    return plan


FAULTS = {
    "cut": every(10, Fault(cut=1000)),
    "cut at once": every(3, Fault(cut=-1, reset=True)),
    "storm": storm,
    "corrupt": corrupted_once(),
    "other range": every(5, Fault(asked={"range": "bytes=5-104"})),
    "all of it": every(5, Fault(asked={"range": ""})),
    "told wrongly": every(5, Fault(headers={"content-range": f"bytes 0-9/{len(DATA)}"})),
}


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy before a web server with the image."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        (server.root / "image").write_bytes(DATA)
        port = urlsplit(server.url).port
        assert port is not None
        with proxy(port) as between:
            yield between


@pytest.fixture
def store() -> Iterator[RemoteStore]:
    """The http store with its policy; it waits no real time, and gives up late."""
    driver = HttpStore("web", HttpStoreSettings(allow_hosts=("127.0.0.1",), timeout=2))
    timing = Timing(sleep=lambda seconds: None, chance=random.Random(1).random)
    store = RemoteStore(driver, PolicySettings(attempts=12), timing)
    yield store
    store.close()


def opened(cache: BlockCache, store: RemoteStore, between: Proxy) -> CachedReader:
    """The image, through the proxy."""
    copy = Copy(store, f"{between.url}/image")
    return cache.open("image", chunks_of(DATA), lambda: [copy], lambda c, o: None)


@pytest.mark.parametrize("fault", FAULTS)
def test_not_one_wrong_byte(
    cache: BlockCache, store: RemoteStore, between: Proxy, fault: str
) -> None:
    """Whatever breaks, four readers in four orders get what was uploaded."""
    between.set_plan(FAULTS[fault])

    def read_all(number: int) -> bool:
        offsets = list(range(0, len(DATA), 30_000))
        if number:
            random.Random(number).shuffle(offsets)
        return all(reader.read_at(at, 30_000) == DATA[at : at + 30_000] for at in offsets)

    with closing(opened(cache, store, between)) as reader, ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read_all, range(4)))
    between.set_plan(never)


def test_each_chunk_is_sent_once(folder: CacheFolder, store: RemoteStore, between: Proxy) -> None:
    """16 readers in two processes of one cold image: the server sends its bytes once."""
    between.set_plan(never)
    caches = [BlockCache(folder), BlockCache(folder)]
    readers = [opened(cache, store, between) for cache in caches for _ in range(8)]
    # Opening asks for one byte.
    probes = between.body_sent
    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(lambda reader: reader.read_at(0, len(DATA)) == DATA, readers))
    for reader in readers:
        reader.close()
    for cache in caches:
        cache.close()
    assert between.body_sent - probes == len(DATA)


def test_server_that_falls_silent(cache: BlockCache, store: RemoteStore, between: Proxy) -> None:
    """A stalled answer ends with its time-out, and the read with another."""
    between.set_plan(never)
    with closing(opened(cache, store, between)) as reader:
        stalled: list[Request] = []

        def once(request: Request) -> Fault | None:
            stalled.append(request)
            return Fault(stall=100) if len(stalled) == 1 else None

        between.set_plan(once)
        assert reader.read_at(5, 10) == DATA[5:15]
        assert len(stalled) == 2
    between.set_plan(never)


def test_server_that_is_gone(cache: BlockCache, between: Proxy) -> None:
    """A read that found no answer opens the circuit: the next ones cost no request."""
    driver = HttpStore("web", HttpStoreSettings(allow_hosts=("127.0.0.1",), timeout=2))
    timing = Timing(sleep=lambda seconds: None)
    with closing(RemoteStore(driver, PolicySettings(attempts=3, pause=1000), timing)) as store:
        between.set_plan(never)
        reader = opened(cache, store, between)
        between.set_plan(always(Fault(cut=-1)))
        for index in range(10):
            with pytest.raises(StoreUnavailable):
                reader.read_at(index * CHUNK, 1)
        assert len(between.requests) == 3
        reader.close()
    between.set_plan(never)
