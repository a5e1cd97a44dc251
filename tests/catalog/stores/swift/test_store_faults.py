"""The swift store through a proxy that breaks things: the very bytes, or an error."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import (
    CatalogError,
    DataChanged,
    IncompleteUpload,
    NotFound,
    StoreBusy,
    StoreUnavailable,
)
from catalog.stores.swift.store import SwiftStore, SwiftStoreSettings
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.swift_account import Account, container_of, settings, store_all, swift_store
from tests.servers.network.breaking_proxy import Fault, Proxy, Request, always, first, proxy
from tests.servers.swift import Swift


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(asked={"range": ""}), StoreUnavailable),
        (Fault(asked={"range": "bytes=0-99"}), StoreUnavailable),
        (Fault(headers={"content-range": ""}), StoreUnavailable),
        (Fault(headers={"content-range": "bytes 1000-1099/300008"}), DataChanged),
        (Fault(headers={"etag": '"0"'}), DataChanged),
        (Fault(cut=50), StoreUnavailable),
        (Fault(cut=-1), StoreUnavailable),
        (Fault(cut=50, reset=True), StoreUnavailable),
        (Fault(stall=50), StoreUnavailable),
        (Fault(stall=-1), StoreUnavailable),
        (Fault(trickle=50), StoreUnavailable),
        (Fault(status=500), StoreUnavailable),
        (Fault(status=503, headers={"Retry-After": "7"}), StoreBusy),
        (Fault(status=404), NotFound),
        (Fault(status=206, headers={"Content-Range": "bytes 1000-1099/300007"}), DataChanged),
    ],
)
def test_wrong_answer_is_an_error_and_never_wrong_bytes(
    behind: SwiftStore, between: Proxy, fault: Fault, error: type[CatalogError]
) -> None:
    """Whatever happens to an answer, the very bytes come or an error does."""
    reader = behind.open(put_by_writer(behind)("a", DATA))
    between.set_plan(always(fault, "GET"))
    with pytest.raises(error) as raised:
        reader.read_at(1000, 100)
    assert type(raised.value) is error
    if isinstance(raised.value, StoreBusy):
        assert raised.value.retry_after == 7
    between.set_plan(lambda _: None)
    assert reader.read_at(1000, 100) == DATA[1000:1100]


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(cut_request=1000), Fault(cut=-1), Fault(stall=-1)]
)
def test_failed_segment_fails_the_upload(
    behind: SwiftStore, between: Proxy, account: Account, fault: Fault
) -> None:
    """One segment that cannot be stored is no object, and its siblings are removed."""
    put = always(fault, "PUT")
    between.set_plan(lambda r: put(r) if r.target.endswith("/00000001") else None)
    writer = behind.writer("a")
    with pytest.raises(StoreUnavailable):
        store_all(writer, DATA)
    writer.cancel()
    between.set_plan(lambda _: None)
    assert list(behind.keys()) == []
    assert account.names(f"{container_of(behind)}_segments") == []


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(cut_request=1000), Fault(cut=-1)])
def test_a_lost_segment_is_sent_again(
    behind: SwiftStore, between: Proxy, account: Account, fault: Fault
) -> None:
    """It alone, and not the segments that have arrived."""
    lost = first(1, fault, "PUT")
    between.set_plan(lambda r: lost(r) if r.target.endswith("/00000001") else None)
    url = put_by_writer(behind)("a", DATA)
    sent = Counter(r.target.rpartition("/")[2] for r in between.requests if r.method == "PUT")
    assert sent["00000001"] == 2
    assert sum(sent.values()) == len(sent) + 1
    assert read_all(behind, url) == DATA


@pytest.mark.parametrize("size", [len(DATA), 1000])
def test_lost_answer_to_the_last_request(
    behind: SwiftStore, between: Proxy, account: Account, size: int
) -> None:
    """The object that was stored all the same is found to be there, whole."""
    path = f"/{container_of(behind)}/a"
    between.set_plan(lambda r: Fault(cut=-1) if r.method == "PUT" and path in r.target else None)
    url = put_by_writer(behind)("a", DATA[:size])
    assert read_all(behind, url) == DATA[:size]


def test_unknown_outcome_keeps_the_segments(
    behind: SwiftStore, between: Proxy, account: Account
) -> None:
    """While nobody knows whether the object is there, its segments stay; fsck finds out."""
    path = f"/{container_of(behind)}/a"
    writer = behind.writer("a")
    writer.write(DATA)
    seen: list[Request] = []

    def plan(request: Request) -> Fault | None:
        if path in request.target:
            seen.append(request)
            return Fault(cut=-1) if len(seen) > 1 else None
        return None

    between.set_plan(plan)
    with pytest.raises(StoreUnavailable):
        writer.commit()
    writer.cancel()
    between.set_plan(lambda _: None)
    assert read_all(behind, behind.url_of("a")) == DATA
    assert list(behind.leftovers(-10)) == []


def test_corrupted_segment_is_refused_by_the_server(
    behind: SwiftStore, between: Proxy, account: Account
) -> None:
    """Bytes that arrive changed do not match the ETag sent with them."""
    between.set_plan(always(Fault(asked={"etag": "0" * 32}), "PUT"))
    writer = behind.writer("a")
    with pytest.raises(StoreUnavailable, match="other bytes"):
        store_all(writer, DATA)
    writer.cancel()


def test_object_that_changes_while_it_is_copied(
    behind: SwiftStore, between: Proxy, account: Account
) -> None:
    """The copy is none, and leaves no segments."""
    container = container_of(behind)
    url = put_by_writer(behind)("a", DATA)
    changed: list[bool] = []

    def plan(request: Request) -> Fault | None:
        if "x-copy-from" in request.headers and not changed:
            changed.append(True)
            account.ask("PUT", f"{container}/a", DATA[::-1])
        return None

    between.set_plan(plan)
    with pytest.raises(DataChanged):
        behind.copy(url, "b")
    assert list(behind.keys()) == ["a"]
    assert not [n for n in account.names(f"{container}_segments") if n.startswith("b/")]


def test_file_that_shrinks_is_no_upload(
    behind: SwiftStore, between: Proxy, account: Account, tmp_path: Path
) -> None:
    """A staged file cut off while it is read is an error, and nothing is left of it."""
    staged = tmp_path / "staged"
    staged.write_bytes(DATA)

    def cut_off(_request: Request) -> None:
        staged.write_bytes(DATA[:1000])

    between.set_plan(cut_off)
    writer = behind.writer("a")
    with pytest.raises(IncompleteUpload):
        writer.take(staged)
    writer.cancel()
    assert account.names(f"{container_of(behind)}_segments") == []


# Death


UPLOAD = """
import sys
from catalog.stores.swift.store import SwiftStore, SwiftStoreSettings
store = SwiftStore("sw", SwiftStoreSettings.model_validate_json(sys.argv[1]))
writer = store.writer("a")
writer.write(sys.stdin.buffer.read())
writer.commit()
"""


def killed_at(between: Proxy, number: int, given: SwiftStoreSettings) -> bool:
    """Upload DATA by a process that is killed at its `number`-th request; False if it ends."""
    command = [sys.executable, "-c", UPLOAD, given.model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:

        def plan(request: Request) -> Fault | None:
            if len(between.requests) < number:
                return None
            process.kill()
            return Fault(cut_request=0)

        between.set_plan(plan)
        process.communicate(DATA)
    between.set_plan(lambda _: None)
    return process.returncode != 0


def test_killed_upload_is_whole_or_nothing(
    behind: SwiftStore, between: Proxy, swift_server: Swift, account: Account, tmp_path: Path
) -> None:
    """Wherever its process is killed; and what it leaves goes with its key."""
    container = container_of(behind)
    url = f"{between.url}/auth/v1.0"
    given = settings(swift_server, tmp_path / "again", auth_url=url, container=container)
    requests = 0
    while killed_at(between, requests := requests + 1, given):
        try:
            assert read_all(behind, behind.url_of("a")) == DATA
        except NotFound:
            assert list(behind.keys()) == []
        # A segment that was on its way may still arrive.
        while account.names(f"{container}_segments"):
            behind.delete(behind.url_of("a"))
    assert requests >= 9
    assert read_all(behind, behind.url_of("a")) == DATA


# TLS


@pytest.fixture
def tls(swift_server: Swift, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy that speaks TLS, with `cert.pem` in the test's folder."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        " -subj /CN=swift -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    with proxy(swift_server.port, (tmp_path / "cert.pem", tmp_path / "key.pem")) as running:
        yield running


def over_tls(tls: Proxy, **values: object) -> dict[str, object]:
    """Settings for that proxy."""
    urls = {"auth_url": f"{tls.url}/auth/v1.0", "storage_url": f"{tls.url}/v1/AUTH_test"}
    return urls | values


def test_tls(swift_server: Swift, tls: Proxy, tmp_path: Path) -> None:
    """Data goes to the account the settings tell, and its MD5 is not computed here."""
    values = over_tls(tls, ca_bundle=tmp_path / "cert.pem")
    with swift_store(swift_server, tmp_path, **values) as store:
        for data in (DATA, DATA[:1000]):
            assert read_all(store, put_by_writer(store)("a", data)) == data
    sent = [request for request in tls.requests if request.method == "PUT"]
    assert len(sent) == 2 + 6 + 1
    assert not any("etag" in request.headers for request in sent)


def test_unknown_authority_is_refused(swift_server: Swift, tls: Proxy, tmp_path: Path) -> None:
    """A server nobody vouches for is not told the key."""
    with (
        pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
        swift_store(swift_server, tmp_path, **over_tls(tls)),
    ):
        pass
    assert tls.requests == []


def test_token_is_not_sent_in_the_clear(swift_server: Swift, tls: Proxy, tmp_path: Path) -> None:
    """An account's URL without TLS is refused when it is not on this host."""
    far = Fault(headers={"X-Storage-Url": "http://swift.test/v1/AUTH_test"})
    tls.set_plan(always(far))
    values = over_tls(tls, ca_bundle=tmp_path / "cert.pem", storage_url=None)
    with (
        pytest.raises(StoreUnavailable, match="not https"),
        swift_store(swift_server, tmp_path, **values),
    ):
        pass
