"""The http store and what can go wrong between it and a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from catalog.errors import DataChanged, Forbidden, NotFound, StoreBusy, StoreUnavailable
from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http.store import HttpStore
from catalog.stores.registry import open_store
from tests.kit.stores.contract import DATA, read_all
from tests.servers.network.breaking_proxy import Fault, Proxy, always, every, first, proxy
from tests.servers.nginx import WebServer, nginx


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """One nginx for all tests of this file."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture
def between(web: WebServer) -> Iterator[Proxy]:
    """A proxy in front of it, which has an object `a`."""
    (web.root / "a").write_bytes(DATA)
    with proxy(web.port) as between:
        yield between


@pytest.fixture
def store(between: Proxy) -> Iterator[HttpStore]:
    """A store without any policy, that may talk to the proxy alone."""
    port = between.url.rpartition(":")[2]
    store = HttpStore("web", HttpStoreSettings(allow_hosts=(f"127.0.0.1:{port}",), timeout=0.5))
    yield store
    store.close()


PART = f"bytes 1000-2999/{len(DATA)}"

FAULTS = {
    "cut off": (Fault(cut=500), "1500 more expected|500"),
    "cut off by a reset": (Fault(cut=500, reset=True), "reset|more expected"),
    "no answer": (Fault(cut=-1), "without response"),
    "silence": (Fault(stall=-1), "timed out"),
    "silence within the body": (Fault(stall=500), "timed out"),
    "another range": (Fault(asked={"Range": "bytes=1001-3000"}), "answered with bytes 1001-3000/"),
    "a longer range": (Fault(asked={"Range": "bytes=1000-3000"}), "answered with bytes 1000-3000/"),
    "the whole object": (Fault(asked={"Range": ""}), "ignores Range"),
    "no Content-Range": (Fault(headers={"Content-Range": ""}), "answered with nothing"),
    "corrupted Content-Range": (
        Fault(headers={"Content-Range": PART.replace("bytes ", "bytes=")}),
        "answered with bytes=1000",
    ),
    "negative Content-Range": (
        Fault(headers={"Content-Range": f"bytes -1000-2999/{len(DATA)}"}),
        "answered with bytes -1000",
    ),
    "body longer than its range": (
        Fault(asked={"Range": "bytes=1000-3500"}, headers={"Content-Range": PART}),
        "instead of 2000",
    ),
    "body shorter than its range": (
        Fault(asked={"Range": "bytes=1000-1999"}, headers={"Content-Range": PART}),
        "1000 bytes",
    ),
    "500": (Fault(status=500), "answered 500"),
    "502": (Fault(status=502, body=b"<html>"), "answered 502"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_an_error_and_the_next_read_is_right(
    store: HttpStore, between: Proxy, name: str
) -> None:
    """No other byte is ever taken for the object's, and nothing of a fault is left over."""
    fault, reason = FAULTS[name]
    reader = store.open(f"{between.url}/a")
    between.set_plan(first(1, fault))
    with pytest.raises(StoreUnavailable, match=reason):
        reader.read_at(1000, 2000)
    assert reader.read_at(1000, 2000) == DATA[1000:3000]


@pytest.mark.parametrize("name", ["the whole object", "no Content-Range", "another range"])
def test_nobody_relies_on_a_server_without_ranges(
    store: HttpStore, between: Proxy, name: str
) -> None:
    """An object that cannot be read in parts cannot be opened, nor its size be told."""
    between.set_plan(always(FAULTS[name][0]))
    for attempt in (store.open, store.stat):
        with pytest.raises(StoreUnavailable):
            attempt(f"{between.url}/a")


def test_busy_server(store: HttpStore, between: Proxy) -> None:
    """A server under load says when to come back."""
    between.set_plan(always(Fault(status=503, headers={"Retry-After": "3"})))
    with pytest.raises(StoreBusy) as caught:
        store.open(f"{between.url}/a")
    assert caught.value.retry_after == 3


@pytest.mark.parametrize("etag_is_known", [True, False])
def test_object_that_changes_between_two_reads(
    store: HttpStore, between: Proxy, web: WebServer, etag_is_known: bool
) -> None:
    """The server is asked for the object that was opened; whoever opens again reads the new one."""
    if not etag_is_known:
        between.set_plan(always(Fault(headers={"ETag": ""})))
    reader = store.open(f"{between.url}/a")
    assert reader.read_at(0, 1000) == DATA[:1000]
    (web.root / "a").write_bytes(DATA[::-1])
    changed = os.stat(web.root / "a").st_mtime + 100
    os.utime(web.root / "a", (changed, changed))
    with pytest.raises(DataChanged):
        reader.read_at(1000, 1000)
    assert read_all(store, f"{between.url}/a") == DATA[::-1]
    conditions = [r.headers.keys() & {"if-match", "if-unmodified-since"} for r in between.requests]
    assert conditions[2] == {"if-match" if etag_is_known else "if-unmodified-since"}


def test_server_that_ignores_conditions(store: HttpStore, between: Proxy, web: WebServer) -> None:
    """What it answers with is compared all the same."""
    between.set_plan(always(Fault(asked={"If-Match": ""})))
    reader = store.open(f"{between.url}/a")
    (web.root / "a").write_bytes(DATA + b"x")
    with pytest.raises(DataChanged):
        reader.read_at(1000, 1000)


def test_object_that_vanishes(store: HttpStore, between: Proxy, web: WebServer) -> None:
    """What is gone from the server is not found, also by who has it open."""
    reader = store.open(f"{between.url}/a")
    (web.root / "a").unlink()
    with pytest.raises(NotFound):
        reader.read_at(0, 10)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/a", "http://169.254.169.254/", "//[::1]/"]
)
def test_redirect_to_a_private_address(
    store: HttpStore, between: Proxy, web: WebServer, target: str
) -> None:
    """A permitted server cannot send us to another one of ours, neither at first nor later."""
    reader = store.open(f"{between.url}/a")
    headers = {"Location": target.format(port=web.port)}
    between.set_plan(always(Fault(status=302, headers=headers)))
    with pytest.raises(Forbidden):
        reader.read_at(0, 10)
    with pytest.raises(Forbidden):
        store.open(f"{between.url}/a")


def test_policy_gets_every_byte_through(between: Proxy, web: WebServer) -> None:
    """With its policy around it, the store reads all of it over connections that keep breaking."""
    settings = HttpStoreSettings.model_validate(
        {"allow_hosts": ["127.0.0.1"], "timeout": 5, "policy": {"attempts": 4}}
    )
    store = open_store("web", settings)
    between.set_plan(every(3, Fault(cut=100)))
    reader = store.open(f"{between.url}/a")
    parts = [reader.read_at(offset, 50_000) for offset in range(0, len(DATA), 50_000)]
    assert b"".join(parts) == DATA
    reader.close()
    store.close()
