"""The http store against the contract on nginx, and against servers that misbehave."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import DataChanged, NotFound, StoreBusy, StoreRefused, StoreUnavailable
from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http.store import HttpStore
from tests.kit.stores.contract import DATA, ReadContract, Subject, read_all
from tests.servers.programs import free_ports
from tests.servers.scripted import Answer, WebServer, asked_range, respond, scripted


class TestContract(ReadContract):
    @pytest.fixture
    def subject(self, store: HttpStore, web: WebServer) -> Subject:
        """A document root of nginx."""
        return subject_at(store, web, web.url)


class TestTlsContract(ReadContract):
    @pytest.fixture
    def subject(self, web: WebServer) -> Iterator[Subject]:
        """The same over HTTPS."""
        store = tls_store(web.authority)
        yield subject_at(store, web, web.tls_url)
        store.close()


def subject_at(store: HttpStore, web: WebServer, url: str) -> Subject:
    """The files of nginx at one of its addresses."""

    def put(key: str, data: bytes) -> str:
        (web.root / key).write_bytes(data)
        return f"{url}/{key}"

    return Subject(store, put, f"{url}/missing")


# TLS


def tls_store(certificate: Path | None) -> HttpStore:
    """A store that finds every name on this host."""
    settings = HttpStoreSettings(allow_hosts=("127.0.0.1",), ca_bundle=certificate)
    return HttpStore("web", settings, look_up=lambda _host, _port: ["127.0.0.1"])


def test_certificate_is_verified_by_name(web: WebServer) -> None:
    """Though an address is connected to, TLS is about the name in the URL."""
    (web.root / "a").write_bytes(DATA)
    store = tls_store(web.authority)
    assert read_all(store, f"{web.tls_url}/a") == DATA
    with pytest.raises(StoreUnavailable, match="Hostname mismatch"):
        store.open(f"{web.tls_url.replace('images.test', 'other.test')}/a")
    store.close()


def test_unknown_authority_is_refused(web: WebServer) -> None:
    """A certificate that nobody vouches for is none."""
    store = tls_store(None)
    with pytest.raises(StoreRefused, match="CERTIFICATE_VERIFY_FAILED"):
        store.open(f"{web.tls_url}/a")


def test_redirect_out_of_tls_is_refused(web: WebServer) -> None:
    """What began encrypted stays so."""
    (web.root / "a").write_bytes(DATA)
    store = tls_store(web.authority)
    with pytest.raises(StoreRefused, match="redirects from https to http:"):
        store.open(f"{web.tls_url}/out-of-tls")
    store.close()


# Servers that misbehave


def part(
    handler: BaseHTTPRequestHandler, headers: dict[str, str] | None = None, data: bytes = DATA
) -> None:
    """The right answer, with other headers if given."""
    first, last = asked_range(handler)
    content_range = f"bytes {first}-{last}/{len(data)}"
    right = {"Content-Range": content_range, "ETag": '"1"'}
    respond(handler, 206, right | (headers or {}), data[first : last + 1])


def whole(handler: BaseHTTPRequestHandler) -> None:
    """The whole object: what a server without ranges answers."""
    respond(handler, 200, {"ETag": '"1"'}, DATA)


def when_opened(later: Answer) -> Answer:
    """The right answer to the request that opens the object, `later` to reads."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (part if asked_range(handler) == (0, 0) else later)(handler)

    return answer


def shifted(handler: BaseHTTPRequestHandler) -> None:
    """Other bytes than asked for, honestly declared."""
    first, last = asked_range(handler)
    part(handler, {"Content-Range": f"bytes {first + 1}-{last + 1}/{len(DATA)}"})


def shorter(handler: BaseHTTPRequestHandler) -> None:
    """Fewer bytes than asked for, honestly declared."""
    first, last = asked_range(handler)
    headers = {"Content-Range": f"bytes {first}-{last - 1}/{len(DATA)}", "ETag": '"1"'}
    respond(handler, 206, headers, DATA[first:last])


def too_short(handler: BaseHTTPRequestHandler) -> None:
    """Half of what the headers promise, and the end of the connection."""
    first, last = asked_range(handler)
    headers = {
        "Content-Range": f"bytes {first}-{last}/{len(DATA)}",
        "ETag": '"1"',
        "Content-Length": str(last + 1 - first),
    }
    respond(handler, 206, headers, DATA[first : (first + last) // 2])
    handler.close_connection = True


def chunked(change: Callable[[bytes], bytes]) -> Answer:
    """An answer in chunks, without a Content-Length, its body changed."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        first, last = asked_range(handler)
        body = change(DATA[first : last + 1])
        handler.send_response(206)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(DATA)}")
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No answer at all."""
    handler.close_connection = True


def garbage(handler: BaseHTTPRequestHandler) -> None:
    """Not HTTP."""
    handler.wfile.write(b"220 smtp ready\r\n")
    handler.close_connection = True


MISBEHAVIOUR: dict[str, tuple[Answer, str]] = {
    "ignores Range": (whole, "ignores Range"),
    "another range": (shifted, "answered with bytes 1001-2001/"),
    "less than asked for": (shorter, "answered with bytes 1000-1999/"),
    "no Content-Range": (
        lambda handler: part(handler, {"Content-Range": ""}),
        "asked for bytes=1000-2000 and answered with",
    ),
    "size impossible": (
        lambda handler: part(handler, {"Content-Range": f"bytes 1000-2000/{10**20}"}),
        f"answered with bytes 1000-2000/{10**20}",
    ),
    "size unknown": (
        lambda handler: part(handler, {"Content-Range": "bytes 1000-2000/*"}),
        r"answered with bytes 1000-2000/\*",
    ),
    "several parts": (
        lambda handler: respond(handler, 206, {"Content-Type": "multipart/byteranges; boundary=x"}),
        "answered with nothing",
    ),
    "compressed": (
        lambda handler: part(handler, {"Content-Encoding": "gzip"}, gzip.compress(DATA)),
        "Content-Encoding gzip",
    ),
    "cut off": (too_short, "501 more expected|1001"),
    "chunks too short": (chunked(lambda body: body[:-1]), "1000 bytes"),
    "chunks too long": (chunked(lambda body: body + b"xx"), "instead of 1001"),
    "gone from the cache": (lambda handler: respond(handler, 416, {}), "answered 416"),
    "forbidden": (lambda handler: respond(handler, 403, {}), "answered 403 Forbidden"),
    "broken": (lambda handler: respond(handler, 500, {}), "answered 500"),
    "not modified": (lambda handler: respond(handler, 304, {}), "answered 304"),
    "redirect to nowhere": (lambda handler: respond(handler, 302, {}), "answered 302"),
    "bad redirect": (
        lambda handler: respond(handler, 302, {"Location": "http://[x/"}),
        "redirects",
    ),
    "hangs up": (hang_up, "closed connection without response"),
    "not http": (garbage, "220 smtp ready"),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_misbehaving_server_is_not_believed(store: HttpStore, name: str) -> None:
    """A read that is not answered with its very bytes fails and says what the server did."""
    answer, reason = MISBEHAVIOUR[name]
    with scripted(when_opened(answer)) as server:
        reader = store.open(server.url)
        with pytest.raises(StoreUnavailable, match=reason):
            reader.read_at(1000, 1001)
        store.close()


def test_chunked_answer_is_read(store: HttpStore) -> None:
    """A server need not tell the length of a part beforehand."""
    with scripted(chunked(lambda body: body)) as server:
        assert read_all(store, server.url) == DATA
        store.close()


def test_server_without_ranges_is_refused_when_opened(store: HttpStore) -> None:
    """Nobody gets to rely on an object that cannot be read in parts."""
    with scripted(whole) as server:
        for attempt in (store.open, store.stat):
            with pytest.raises(StoreRefused, match="ignores Range"):
                attempt(server.url)


CHANGES: dict[str, Answer] = {
    "another etag": lambda handler: part(handler, {"ETag": '"2"'}),
    "no etag": lambda handler: part(handler, {"ETag": ""}),
    "another size": lambda handler: part(handler, data=DATA + b"x"),
    "not the one asked for": lambda handler: respond(handler, 412, {}),
    "ends before": lambda handler: respond(handler, 416, {"Content-Range": "bytes */1000"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_object_is_told_from_a_broken_server(store: HttpStore, name: str) -> None:
    """Trying again could not help; opening again does."""
    with scripted(when_opened(CHANGES[name])) as server:
        reader = store.open(server.url)
        with pytest.raises(DataChanged):
            reader.read_at(1000, 1001)
        store.close()


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({"ETag": '"1"'}, ("If-Match", '"1"')),
        ({"ETag": 'W/"1"'}, None),
        ({"ETag": "1"}, None),
        (
            {"ETag": "", "Last-Modified": "Mon, 10 Nov 2025 08:00:00 GMT"},
            ("If-Unmodified-Since", "Mon, 10 Nov 2025 08:00:00 GMT"),
        ),
        ({"ETag": "", "Last-Modified": "yesterday"}, None),
    ],
)
def test_reads_ask_for_the_object_that_was_opened(
    store: HttpStore, headers: dict[str, str], condition: tuple[str, str] | None
) -> None:
    """By the strongest condition the server gave, as a weak ETag never matches."""
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append([item for item in handler.headers.items() if item[0].startswith("If-")])
        part(handler, headers)

    with scripted(answer) as server:
        assert read_all(store, server.url) == DATA
        store.close()
    assert asked == [[], [condition] if condition else []]


@pytest.mark.parametrize(
    ("status", "told", "retry_after"), [(503, "7", 7.0), (429, "", None), (503, "soon", None)]
)
def test_busy_server_is_told_from_a_broken_one(
    store: HttpStore, status: int, told: str, retry_after: float | None
) -> None:
    """When it may be asked again is passed on, if the server said so in seconds."""
    with scripted(lambda handler: respond(handler, status, {"Retry-After": told})) as server:
        with pytest.raises(StoreBusy, match=f"answered {status}") as caught:
            store.open(server.url)
        store.close()
    assert caught.value.retry_after == retry_after


@pytest.mark.parametrize("status", [404, 410])
def test_vanished_object_is_not_found(store: HttpStore, status: int) -> None:
    """An object that is removed while it is open is reported as that."""
    with scripted(when_opened(lambda handler: respond(handler, status, {}))) as server:
        reader = store.open(server.url)
        with pytest.raises(NotFound):
            reader.read_at(1000, 1001)
        store.close()


def test_time_of_change_serves_for_an_etag(store: HttpStore) -> None:
    """Without ETags a newer Last-Modified says that the object changed."""
    days = iter(range(10, 20))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        changed = f"Mon, {next(days)} Nov 2025 08:00:00 GMT"
        part(handler, {"ETag": "", "Last-Modified": changed})

    with scripted(answer) as server:
        reader = store.open(server.url)
        with pytest.raises(DataChanged):
            reader.read_at(1000, 1001)
        store.close()


def test_server_that_never_answers(web: WebServer) -> None:
    """A silent server is given up after the time-out, before and within an answer."""
    settings = HttpStoreSettings(allow_hosts=("127.0.0.1",), timeout=0.2)

    def stall(handler: BaseHTTPRequestHandler) -> None:
        first, last = asked_range(handler)
        headers = {"Content-Range": f"bytes {first}-{last}/{len(DATA)}", "ETag": '"1"'}
        respond(handler, 206, headers | {"Content-Length": str(last + 1 - first)}, b"x")
        handler.rfile.read(1)

    for answer in (stall, lambda handler: handler.rfile.read(1) and None):
        store = HttpStore("web", settings)
        with scripted(when_opened(answer)) as server:
            reader = store.open(server.url)
            with pytest.raises(StoreUnavailable, match="timed out"):
                reader.read_at(1000, 1001)
            store.close()


def test_server_that_drips(web: WebServer) -> None:
    """A byte now and then, each within the time-out, keeps nobody waiting for ever."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        first, last = asked_range(handler)
        headers = {"Content-Range": f"bytes {first}-{last}/{len(DATA)}", "ETag": '"1"'}
        respond(handler, 206, headers | {"Content-Length": str(last + 1 - first)})
        with suppress(OSError):
            for byte in DATA[first : last + 1]:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.01)
        handler.close_connection = True

    store = HttpStore("web", HttpStoreSettings(allow_hosts=("127.0.0.1",), timeout=0.2))
    with scripted(when_opened(drip)) as server:
        reader = store.open(server.url)
        with pytest.raises(StoreUnavailable, match="too slowly"):
            reader.read_at(1000, 1001)
        store.close()


def test_nobody_listens(store: HttpStore) -> None:
    """A server that is down is unavailable, in one line."""
    with pytest.raises(StoreUnavailable, match="Connection refused") as caught:
        store.open(f"http://127.0.0.1:{free_ports(1)[0]}/a")
    assert "\n" not in str(caught.value)


def test_uncompressed_data_is_asked_for(store: HttpStore) -> None:
    """Servers compress for who accepts it; the ranges would be of other bytes."""
    accepted = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        accepted.extend(handler.headers.get_all("Accept-Encoding", []))
        part(handler)

    with scripted(answer) as server:
        store.stat(server.url)
        store.close()
    assert accepted == ["identity"]


def test_connection_is_reused(store: HttpStore) -> None:
    """Reads one after the other take one connection."""
    with scripted(part) as server:
        reader = store.open(server.url)
        for offset in range(10):
            assert reader.read_at(offset, 100) == DATA[offset : offset + 100]
        store.close()
    assert (server.connections, len(server.requests)) == (1, 11)


def test_redirect_is_remembered_until_it_expires(store: HttpStore) -> None:
    """Reads go straight to where the object was found; a signed URL that ran out is renewed."""
    signed = iter(["/signed1", "/signed2"])
    valid = ["/signed1"]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/image":
            respond(handler, 302, {"Location": next(signed)})
        elif handler.path in valid:
            part(handler)
        else:
            respond(handler, 403, {})

    with scripted(answer) as server:
        reader = store.open(server.url)
        reader.read_at(0, 10)
        valid[:] = ["/signed2"]
        assert reader.read_at(1000, 10) == DATA[1000:1010]
        reader.read_at(0, 10)
        store.close()
    assert server.requests == [
        *("/image", "/signed1", "/signed1"),
        *("/signed1", "/image", "/signed2", "/signed2"),
    ]


# Settings


@pytest.mark.parametrize(
    "bad",
    [{"allow_hosts": ["10.0.0.1/8"]}, {"timeout": 0}, {"ca_bundle": "/nowhere"}, {"verify": False}],
)
def test_bad_setting(bad: dict[str, object]) -> None:
    """A setting that cannot work is refused when it is read."""
    with pytest.raises(ValidationError):
        HttpStoreSettings.model_validate(bad)
