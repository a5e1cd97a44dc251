"""The HTTP server with clients that mean harm, or do not know better."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.kit.dripping import dripping
from tests.kit.wire import PATIENCE, Process, Served, Wire, head, make_certificate, process, serving
from web.exchange.limits import Limits
from web.server.listening import TlsFiles

MIB = 1024 * 1024
GIB = 1024 * MIB
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
STALLED = 300
SOME_MEMORY = 16 * MIB


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A running server."""
    with serving(tmp_path) as served:
        yield served


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Served]:
    """A server that soon loses its patience; each time-out is another one."""
    limits = Limits(header_seconds=0.5, idle_seconds=1, transfer_seconds=1, linger_seconds=0.5)
    with serving(tmp_path, limits=limits) as served:
        yield served


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Process]:
    """A server in a process of its own, whose memory can be watched."""
    with process(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        # Framing two programs could read in two ways (request smuggling).
        (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
        (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
        (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        (400, POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
        (400, POST + b"X: 1\r\n Content-Length: 3\r\n\r\nabc"),
        (400, POST + b"X: 1\r\n\tfolded\r\n\r\n"),
        (400, POST + b"X: 1\nContent-Length: 3\r\n\r\nabc"),
        (400, POST + b"X: 1\rContent-Length: 3\r\n\r\nabc"),
        (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
        (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n"),
        (501, POST + b"Transfer-Encoding: chunked, identity\r\n\r\n"),
        (501, POST + b"Transfer-Encoding: identity\r\n\r\n"),
        # Lengths that are none.
        (400, POST + b"Content-Length: -1\r\n\r\n"),
        (400, POST + b"Content-Length: +1\r\n\r\na"),
        (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
        (400, POST + b"Content-Length: 1_0\r\n\r\nabcdefghij"),
        (400, POST + b"Content-Length: 3a\r\n\r\nabc"),
        (400, POST + b"Content-Length: \xb2\r\n\r\nab"),
        (400, POST + b"Content-Length:\r\n\r\n"),
        (400, POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"),
        # Lines.
        (400, b"GET / HTTP/1.1\nHost: a\n\n"),
        (400, b"\n"),
        (400, GET + b"X: a\0b\r\n\r\n"),
        (400, GET + b"X : a\r\n\r\n"),
        (400, GET + b": a\r\n\r\n"),
        (400, GET + b"no colon\r\n\r\n"),
        (400, GET + b"X\xe4: a\r\n\r\n"),
        (400, b"nonsense\r\n\r\n"),
        (400, b"GET /\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        # Hosts.
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: \r\n\r\n"),
        (400, GET + b"Host: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, b"GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        # Sizes.
        (414, b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        (414, b"G" * 9000),
        (431, GET + b"X: " + b"x" * 65536 + b"\r\n\r\n"),
        (431, GET + b"X: " + b"x" * 70000),
        (431, GET + b"X: 1\r\n" * 200 + b"\r\n"),
        # A protocol of its own.
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n" + b"x" * 100),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ],
)
def test_a_bad_head_is_refused(served: Served, status: int, request_bytes: bytes) -> None:
    """By its status, before any application; what follows is never taken for a request."""
    with served.connect() as wire:
        wire.send(request_bytes + head("GET /smuggled"))
        answer = wire.read()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert wire.at_end()
    assert served.app.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "/a%",
        "/a%2",
        "/a%zz",
        "/%00",
        "/%0a",
        "/%7f",
        "/%ff",
        "/%c0%ae",
        "/%ed%a0%80",
        "/..",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a/.%2E",
        "/./a",
        "/a%2fb",
        "/a#b",
        "a",
        "*",
        "images.test:80",
        "ftp://images.test/",
        "http:///a",
    ],
)
def test_a_bad_target_is_refused(served: Served, target: str) -> None:
    """Names that no tree can hold, however they are spelled."""
    with served.connect() as wire:
        assert wire.ask(f"GET {target}").status == 400
    assert served.app.seen == []


def test_a_refusal_of_head_has_no_body(served: Served) -> None:
    """Also where the server itself answers."""
    with served.connect() as wire:
        assert wire.ask("HEAD /a%zz").status == 400
        assert wire.at_end()


def test_the_largest_good_head_passes(served: Served) -> None:
    """A request line of exactly 8 KiB, 200 fields, 64 KiB in all."""
    line = "GET /?" + "x" * (8192 - len("GET /? HTTP/1.1"))
    fields = ["X: 1"] * 198
    room = 65536 - len(head(line, *fields, "Y: "))
    with served.connect() as wire:
        assert wire.ask(line, *fields, "Y: " + "y" * room).status == 200


def test_a_slow_head_times_out(hasty: Served) -> None:
    """Bytes that drip do not extend the deadline; the client is told."""
    with hasty.connect() as wire:
        wire.send(GET)
        with dripping(wire, b"X: 1\r\n"):
            assert wire.read().status == 408
            assert wire.at_end()
    assert hasty.app.seen == []


def test_a_slow_handshake_times_out(tmp_path: Path) -> None:
    """Nor does a TLS record that comes byte by byte."""
    limits = Limits(header_seconds=0.5)
    tls = make_certificate(tmp_path)
    with serving(tmp_path, tls=tls, limits=limits) as served, served.connect() as wire:
        wire.send(b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc\x03\x03")
        with dripping(wire, b"\0"):
            assert wire.at_end()


@pytest.mark.stress
def test_a_silent_client_is_dropped(hasty: Served, tmp_path: Path) -> None:
    """Before its first request, between two, in the middle of a handshake."""
    with hasty.connect() as wire:
        assert wire.at_end()
    with hasty.connect() as wire:
        assert wire.ask("GET /").status == 200
        assert wire.at_end()
    limits = Limits(header_seconds=0.5)
    tls = make_certificate(tmp_path)
    with serving(tmp_path, tls=tls, limits=limits) as served, served.connect() as wire:
        wire.send(b"\x16\x03\x01")
        assert wire.at_end()


@pytest.mark.stress
def test_a_stalled_upload_ends(hasty: Served) -> None:
    """The application is told that the upload is incomplete, and can say so."""
    for request in (
        head("PUT /stored", length=10),
        head("PUT /stored", "Transfer-Encoding: chunked"),
    ):
        with hasty.connect() as wire:
            wire.send(request + b"5")
            answer = wire.read()
            assert answer.status == 400
            assert b"no progress" in answer.body
            assert wire.at_end()


@pytest.mark.stress
def test_an_upload_that_only_drips_ends(hasty: Served) -> None:
    """Bytes that come one by one keep a worker no longer than silence; it is told why."""
    for request, drop in (
        (head("PUT /stored", length=10_000), b"x"),
        (head("PUT /stored", "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    ):
        with hasty.connect() as wire:
            wire.send(request)
            with dripping(wire, drop):
                answer = wire.read()
            assert answer.status == 400
            assert b"slower than 500 bytes/s" in answer.body


@pytest.mark.stress
def test_a_slow_upload_goes_on(hasty: Served) -> None:
    """Far beyond the time-out, as long as it is no slower than a modem."""
    size = 5000
    with hasty.connect() as wire:
        wire.send(head("PUT /stored", length=size))
        for _ in range(size // 100):
            wire.send(bytes(100))
            time.sleep(0.05)
        assert wire.read().status == 201
        # Neither is a client slow whose many small requests each take a moment.
        for _ in range(5):
            wire.send(head("PUT /stored", length=10))
            time.sleep(0.3)
            wire.send(bytes(10))
            assert wire.read().status == 201


@pytest.mark.stress
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("path", ["/huge", "/endless"])
def test_a_download_that_is_read_too_slowly_ends(tmp_path: Path, path: str, secure: bool) -> None:
    """However it is sent: a client that always takes a little is cut off too."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(64 * MIB)
    tls = make_certificate(tmp_path) if secure else None
    limits = Limits(transfer_seconds=1, least_rate=1024 * GIB)
    with (
        serving(tmp_path, tls=tls, limits=limits) as served,
        Wire(served.server.port, tls.certificate if tls else None) as wire,
    ):
        wire.send(head(f"GET {path}"))
        with pytest.raises((OSError, EOFError)):
            _read_slowly(wire)


def _read_slowly(wire: Wire) -> None:
    for _ in range(1000):
        wire.take(64 * 1024)
        time.sleep(0.02)


def test_an_upload_cut_off_by_fin_is_answered(served: Served) -> None:
    """A client that only shut down its sending side still reads why."""
    with served.connect() as wire:
        wire.send(head("PUT /stored", length=10) + b"01234")
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.read()
        assert answer.status == 400
        assert b"after 5 of 10 bytes" in answer.body


@pytest.mark.stress
def test_a_stalled_download_ends(hasty: Served) -> None:
    """A client that does not read loses its connection, so that nothing looks complete."""
    size = 64 * MIB
    with (hasty.app.folder / "huge").open("wb") as file:
        file.truncate(size)
    with hasty.connect() as wire:
        wire.send(head("GET /huge"))
        answer = wire.read(head_only=True)
        assert answer.headers["content-length"] == str(size)
        _wait_until(lambda: not hasty.server.open_connections)
        with pytest.raises((ConnectionError, EOFError)):
            wire.take(size)


def test_a_client_that_goes_away_is_no_news(served: Served) -> None:
    """Nothing worse than a debug message is logged (see log_is_clean)."""
    (served.app.folder / "data").write_bytes(bytes(16 * MIB))
    for sent in (b"GET / HT", head("GET /data"), head("PUT /stored", length=100) + b"x"):
        wire = served.connect()
        wire.send(sent)
        # Reset instead of FIN.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wire.close()
    _wait_until(lambda: not served.server.open_connections)
    with served.connect() as wire:
        assert wire.ask("GET /").status == 200


@pytest.mark.parametrize("secure", [False, True])
def test_a_huge_refused_upload_costs_no_memory(tmp_path: Path, secure: bool) -> None:
    """1 GiB behind a wrong password: answered before it is sent, never kept."""
    files: TlsFiles | None = make_certificate(tmp_path) if secure else None
    certificate = files.certificate if files else None
    with process(tmp_path, files) as server:
        with Wire(server.port, certificate) as wire:
            wire.ask("GET /")
        before = server.memory()["VmHWM"]
        with Wire(server.port, certificate) as wire:
            wire.send(head("PUT /refused", length=GIB))
            assert wire.read().status == 401
        # Thrown away for a while, then cut off: what counts is that nothing is kept.
        with Wire(server.port, certificate) as wire, suppress(OSError):
            wire.send(head("PUT /refused", length=GIB))
            for _ in range(GIB // MIB):
                wire.send(bytes(MIB))
        assert server.memory()["VmHWM"] < before + SOME_MEMORY


def test_an_endless_chunked_body_costs_no_memory(alone: Process) -> None:
    """Neither where it is refused unread nor where an application reads what it is ready for."""
    before = alone.memory()["VmHWM"]
    for path, status in (("/refused", 401), ("/xml", 413)):
        with Wire(alone.port) as wire:
            wire.send(head(f"PUT {path}", "Transfer-Encoding: chunked"))
            wire.send_for_ever(b"100000\r\n" + bytes(MIB) + b"\r\n")
        with Wire(alone.port) as wire:
            wire.send(head(f"PUT {path}", "Transfer-Encoding: chunked") + b"200000\r\n")
            if status == 413:
                wire.send(bytes(2 * MIB))
            assert wire.read().status == status
    assert alone.memory()["VmHWM"] < before + SOME_MEMORY


def test_tiny_chunks_are_read_in_linear_time(alone: Process, tmp_path: Path) -> None:
    """Two million chunks of one byte: quadratic time would not end before the deadline."""
    with Wire(alone.port) as wire:
        wire.send(head("PUT /stored", "Transfer-Encoding: chunked"))
        for _ in range(200):
            wire.send(b"1\r\nx\r\n" * 10_000)
        wire.send(b"0\r\n\r\n")
        assert wire.read().status == 201
    assert (tmp_path / "stored").read_bytes() == b"x" * 2_000_000


def test_endless_headers_cost_no_memory(alone: Process) -> None:
    """The answer comes at the limit, and the client is cut off."""
    before = alone.memory()["VmHWM"]
    with Wire(alone.port) as wire:
        wire.send(GET + b"X: " + b"x" * 65536)
        assert wire.read().status == 431
        wire.send_for_ever(b"x" * 65536)
    assert alone.memory()["VmHWM"] < before + SOME_MEMORY


def test_stalled_clients_stop_nobody(alone: Process, tmp_path: Path) -> None:
    """300 uploads that stall, as many heads and downloads: others go on.

    They come from many addresses, as few would be given no more than their share.
    """
    data = os.urandom(64 * MIB)
    (tmp_path / "data").write_bytes(data)
    with ExitStack() as stack:

        def connect(number: int) -> Wire:
            return stack.enter_context(Wire(alone.port, address=f"127.0.0.{2 + number % 16}"))

        for number in range(STALLED):
            upload, slow = connect(number), connect(number)
            upload.send(head(f"PUT /stalled{number}", length=100) + b"x")
            slow.send(GET)
        for number in range(50):
            connect(number).send(head("GET /data"))
        _wait_until(
            lambda: all((tmp_path / f"stalled{number}").exists() for number in range(STALLED))
        )
        with Wire(alone.port) as wire:
            assert wire.ask("GET /data").body == data
            assert wire.ask("PUT /stored", body=b"abc").status == 201


def test_connections_have_a_limit(tmp_path: Path) -> None:
    """One more is told to come back, and is welcome when another has left."""
    with serving(tmp_path, limits=Limits(connections=2)) as served:
        with served.connect() as first, served.connect() as second:
            assert first.ask("GET /").status == second.ask("GET /").status == 200
            with served.connect() as third:
                assert third.read().status == 503
                assert third.at_end()
        _wait_until(lambda: not served.server.open_connections)
        with served.connect() as wire:
            assert wire.ask("GET /").status == 200


def _wait_until(condition: object) -> None:
    assert callable(condition)
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.01)
