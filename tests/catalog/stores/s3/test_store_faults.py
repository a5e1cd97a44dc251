"""The s3 store with a proxy between it and a real server that breaks what passes."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.errors import DataChanged, StoreBusy, StoreRefused, StoreUnavailable
from catalog.stores.registry import open_store
from catalog.stores.s3.store import S3Store
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.s3_account import Account, leftovers, opened
from tests.servers.network.breaking_proxy import (
    Fault,
    Plan,
    Proxy,
    Request,
    always,
    every,
    first,
    never,
    proxy,
)
from tests.servers.programs import free_ports
from tests.servers.swift import Swift

MIB = 1 << 20
LARGE = random.Random(1).randbytes(20 * MIB + 7)
"""Three parts."""


@pytest.fixture
def store(account: Account, between: Proxy) -> Iterator[S3Store]:
    """A store that is not patient."""
    settings = account.by_way_of(between.url).settings(timeout=1, policy={"attempts": 3})
    with opened(settings) as found:
        yield found


def whole(content_range: str = "", body: bytes = DATA, status: int = 200) -> Fault:
    """An answer made up by the proxy."""
    return Fault(status=status, headers={"Content-Range": content_range, "ETag": "x"}, body=body)


# Reading bytes [1000, 3000)

READ_FAULTS: dict[str, tuple[Fault, type[StoreUnavailable], str]] = {
    "cut": (Fault(cut=500), StoreUnavailable, "connection ended in the middle"),
    "cut at once": (Fault(cut=0), StoreUnavailable, "connection ended in the middle"),
    "reset": (Fault(cut=500, reset=True), StoreUnavailable, "Connection reset by peer"),
    "no answer": (Fault(cut=-1), StoreUnavailable, "ended without an answer"),
    "stall": (Fault(stall=500), StoreUnavailable, "timed out"),
    "silence": (Fault(stall=-1), StoreUnavailable, "timed out"),
    "broken": (Fault(status=500), StoreUnavailable, "answered 500"),
    "busy": (Fault(status=503), StoreBusy, "answered 503"),
    "too many": (Fault(status=429), StoreBusy, "answered 429"),
    "not here": (Fault(status=416), StoreUnavailable, "answered 416"),
    "ignores Range": (whole(), StoreUnavailable, "non-partial response"),
    "another range": (
        Fault(headers={"Content-Range": f"bytes 1001-3000/{len(DATA)}"}),
        StoreUnavailable,
        r"Requested 1000\.\.3000, got 1001\.\.3001",
    ),
    "a shorter range": (
        whole(f"bytes 1000-2000/{len(DATA)}", DATA[1000:2001], 206),
        StoreUnavailable,
        r"Requested 1000\.\.3000, got 1000\.\.2001",
    ),
    "less than it says": (
        Fault(
            status=206,
            headers={"Content-Range": f"bytes 1000-2999/{len(DATA)}", "ETag": "ETAG"},
            body=DATA[1000:2000],
        ),
        StoreUnavailable,
        "1000 bytes instead of 2000",
    ),
    "more than it says": (
        Fault(
            status=206,
            headers={"Content-Range": f"bytes 1000-2999/{len(DATA)}", "ETag": "ETAG"},
            body=DATA[1000:4000],
        ),
        StoreUnavailable,
        "3000 bytes instead of 2000",
    ),
    "another object": (Fault(headers={"ETag": '"other"'}), DataChanged, "has changed"),
    "another size": (
        Fault(headers={"Content-Range": f"bytes 1000-2999/{len(DATA) + 1}"}),
        DataChanged,
        "has changed",
    ),
    "garbage": (Fault(status=600), StoreUnavailable, "600"),
}


@pytest.mark.parametrize("name", READ_FAULTS)
def test_broken_read_is_an_error(store: S3Store, between: Proxy, name: str) -> None:
    """Never other bytes, never silence; and once the server behaves, the same reader reads."""
    fault, error, reason = READ_FAULTS[name]
    url = put_by_writer(store)("a", DATA)
    reader = store.open(url)
    if fault.headers.get("ETag") == "ETAG":
        etag = store.stat(url).etag
        fault = replace(fault, headers={**fault.headers, "ETag": etag})
    between.plan = always(fault, "GET")
    with pytest.raises(StoreUnavailable, match=reason) as caught:
        reader.read_at(1000, 2000)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    between.plan = never
    assert reader.read_at(1000, 2000) == DATA[1000:3000]


def test_nobody_listens(account: Account) -> None:
    """A server that is down is unavailable, in one line, whoever asks."""
    (port,) = free_ports(1)
    settings = account.by_way_of(f"http://127.0.0.1:{port}").settings(policy={"attempts": 1})
    with opened(settings) as store:
        for attempt in (store.check, lambda: store.stat(store.url_of("a"))):
            with pytest.raises(StoreUnavailable, match="Connection refused"):
                attempt()


# Storing


def part_numbers(between: Proxy) -> list[str]:
    """Of the parts that were sent."""
    targets = [request.target for request in between.requests if request.method == "PUT"]
    return [t.partition("partNumber=")[2].partition("&")[0] for t in targets]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_request=5 * MIB),
        Fault(cut_request=100, reset=True),
        Fault(cut=-1),
        Fault(status=503),
        Fault(status=500),
        Fault(stall=-1),
    ],
)
def test_broken_part_is_sent_again(
    store: S3Store, between: Proxy, tmp_path: Path, fault: Fault
) -> None:
    """An upload outlives what breaks one of its requests, and only that part goes out twice."""
    staged = tmp_path / "staged"
    staged.write_bytes(LARGE)
    between.set_plan(every(3, fault, "PUT"))
    writer = store.writer("a")
    writer.take(staged)
    url = writer.commit()
    between.resume()
    assert sorted(part_numbers(between)) in [
        ["1", "1", "2", "3"],
        ["1", "2", "2", "3"],
        ["1", "2", "3", "3"],
    ]
    between.set_plan(never)
    assert read_all(store, url) == LARGE
    assert leftovers(store) == []


@pytest.mark.parametrize("size", [len(DATA), len(LARGE)])
@pytest.mark.parametrize("fault", [Fault(status=503), Fault(cut_request=100_000)])
def test_upload_that_fails_leaves_nothing(
    store: S3Store, between: Proxy, size: int, fault: Fault
) -> None:
    """After the last attempt the error is told, and no part and no object stays."""
    between.plan = always(fault, "PUT")
    with pytest.raises(StoreUnavailable):
        put_by_writer(store)("a", LARGE[:size])
    between.plan = never
    assert list(store.keys()) == []
    assert leftovers(store) == []


def completing(request: Request) -> bool:
    """Whether a request is to make an object of its parts."""
    return request.method == "POST" and "uploadId" in request.target


def test_lost_answer_to_the_last_request(store: S3Store, between: Proxy) -> None:
    """An object that was made, though the answer that said so was lost, is taken for made."""
    lost = first(1, Fault(cut=-1))
    between.plan = lambda request: lost(request) if completing(request) else None
    url = put_by_writer(store)("a", LARGE)
    between.plan = never
    assert read_all(store, url) == LARGE
    assert leftovers(store) == []


def test_failure_told_after_200(store: S3Store, between: Proxy) -> None:
    """S3 may answer 200 and say in the body that it failed."""
    body = (
        b"<?xml version='1.0'?>\n<Error><Code>InternalError</Code><Message>Sorry</Message></Error>"
    )
    plan: Plan = always(Fault(status=200, body=body))
    between.plan = lambda request: plan(request) if completing(request) else None
    with pytest.raises(StoreUnavailable, match="InternalError: Sorry"):
        put_by_writer(store)("a", LARGE)
    between.plan = never
    assert list(store.keys()) == []
    assert leftovers(store) == []


def test_cancel_while_the_server_is_away(store: S3Store, between: Proxy) -> None:
    """A cancel that cannot reach the server is quiet; what stays is found and removed."""
    writer = store.writer("a", len(LARGE))
    writer.write(LARGE)
    between.plan = always(Fault(status=500), "DELETE")
    writer.cancel()
    between.plan = never
    assert len(leftovers(store)) == 1
    store.delete(store.url_of("a"))
    assert leftovers(store) == []


@pytest.mark.parametrize("size", [len(DATA), len(LARGE)])
def test_bytes_changed_on_the_way_are_refused(store: S3Store, between: Proxy, size: int) -> None:
    """Without TLS each body's digest is signed: the server notices a bit that was turned."""
    between.plan = always(Fault(corrupt_request=5000), "PUT")
    with pytest.raises(StoreUnavailable, match="answered 400"):
        put_by_writer(store)("a", LARGE[:size])
    assert list(store.keys()) == []


def test_waiting_parts_are_bounded(store: S3Store, between: Proxy) -> None:
    """While the server takes no more, four parts are under way and the writer waits."""
    data = bytes(8 * MIB)
    between.plan = always(Fault(stall=-1), "PUT")
    slow = S3Store("s3", store._objects._settings.model_copy(update={"timeout": 60}))
    writer = slow.writer("a", 80 * MIB)

    def write() -> None:
        for _ in range(10):
            writer.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    while between.body_received < 4 * len(data):
        time.sleep(0.01)
    assert thread.is_alive()
    assert len(part_numbers(between)) == 4
    assert between.body_received == 4 * len(data)
    between.resume()
    thread.join()
    url = writer.commit()
    between.plan = never
    assert slow.stat(url).size == 80 * MIB
    slow.close()


BOMB = b'<!DOCTYPE a [<!ENTITY b "&c;&c;"><!ENTITY c "x">]><a>&b;</a>'


@pytest.mark.parametrize("body", [b"", b"garbage", b"<a><b></a>", b"<a/>", BOMB])
def test_answer_that_is_none(store: S3Store, between: Proxy, body: bytes) -> None:
    """A server that answers something else than S3 does is unavailable."""
    between.plan = always(Fault(status=200, body=body), "POST")
    with pytest.raises(StoreUnavailable, match="the server's answer"):
        put_by_writer(store)("a", LARGE)
    if body == b"<a/>":
        # As good as an empty list.
        return
    between.plan = always(Fault(status=200, body=body), "GET")
    with pytest.raises(StoreUnavailable, match="the server's answer"):
        leftovers(store)
    with pytest.raises(StoreUnavailable):
        list(store.keys())


def test_server_without_etags(store: S3Store, between: Proxy) -> None:
    """Then the time of change serves for one."""
    put = put_by_writer(store)
    url = put("a", DATA)
    between.plan = always(Fault(headers={"ETag": ""}))
    reader = store.open(url)
    assert reader.read_at(1000, 2000) == DATA[1000:3000]
    later = {"ETag": "", "Last-Modified": "Mon, 10 Nov 2036 08:00:00 GMT"}
    between.plan = always(Fault(headers=later))
    with pytest.raises(DataChanged):
        reader.read_at(1000, 2000)


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca.pem) and a server's certificate of it, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    ca = f"{new} -subj /CN=test-authority -keyout ca.key -out ca.pem"
    server = (
        f"{new} -subj /CN=server -addext subjectAltName=IP:127.0.0.1"
        " -addext basicConstraints=critical,CA:FALSE"
        " -CA ca.pem -CAkey ca.key -keyout key.pem -out cert.pem"
    )
    for command in (ca, server):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def tls(swift_server: Swift, certificates: Path) -> Iterator[Proxy]:
    """A server with TLS."""
    pair = certificates / "cert.pem", certificates / "key.pem"
    with proxy(swift_server.port, certificate=pair) as found:
        yield found


def test_tls(account: Account, tls: Proxy, certificates: Path) -> None:
    """Over TLS a body's digest is not computed again; the url says so."""
    settings = account.by_way_of(tls.url).settings(ca_bundle=certificates / "ca.pem")
    with opened(settings) as store:
        for data in (DATA, LARGE):
            url = put_by_writer(store)("a", data)
            assert url.startswith("s3+https://127.0.0.1:")
            assert read_all(store, url) == data
    puts = [request for request in tls.requests if request.method == "PUT"]
    assert {r.headers["x-amz-content-sha256"] for r in puts} == {"UNSIGNED-PAYLOAD"}


def test_unknown_authority_is_refused(account: Account, tls: Proxy) -> None:
    """A certificate nobody vouches for is none, reading and writing."""
    with opened(account.by_way_of(tls.url).settings(policy={"attempts": 1})) as store:
        with pytest.raises(StoreRefused, match="certificate is not accepted"):
            store.stat(store.url_of("a"))
        with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            put_by_writer(store)("a", DATA)
    assert tls.requests == []


# With the policy around it


@pytest.mark.parametrize(
    "fault", [Fault(cut=1000), Fault(cut=-1, reset=True), Fault(status=503), Fault(cut_request=999)]
)
def test_every_fifth_request_breaks(
    account: Account, between: Proxy, tmp_path: Path, fault: Fault
) -> None:
    """As it is configured, with its policy, the store stores and reads each byte all the same."""
    store = open_store("s3", account.by_way_of(between.url).settings())
    staged = tmp_path / "staged"
    staged.write_bytes(LARGE)
    between.plan = every(5, fault)
    writer = store.writer("a", len(LARGE))
    writer.take(staged)
    reader = store.open(writer.commit())
    offsets = [random.Random(i).randrange(len(LARGE)) for i in range(100)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda offset: reader.read_at(offset, 70_000), offsets))
    assert found == [LARGE[offset : offset + 70_000] for offset in offsets]
    store.delete(store.url_of("a"))
    between.plan = never
    assert list(store.keys()) == []
    assert list(store.leftovers(-60)) == []
    store.close()
