"""The HTTP server with clients that mean well: framing, connections, transfers, its own life."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import InvalidSettings
from tests.kit.daemon import wait_until
from tests.kit.small_app import SmallApp
from tests.kit.wire import PATIENCE, Served, Wire, head, make_certificate, process, serving
from web.exchange.limits import Limits
from web.server.listening import TlsFiles
from web.server.server import Server

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A running server whose folder holds the file `tiny`."""
    (tmp_path / "tiny").write_bytes(b"0123456789")
    with serving(tmp_path) as served:
        yield served


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate for `images.test`."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the file `huge` of 1 GiB and an odd byte, no two blocks the same."""
    folder = tmp_path_factory.mktemp("huge")
    block = os.urandom(MIB)
    with (folder / "huge").open("wb") as file:
        for number in range(GIB // MIB):
            file.write(number.to_bytes(8, "little") + block[8:])
        file.write(b"!")
    yield folder
    (folder / "huge").unlink()


def test_a_connection_serves_many_requests(served: Served) -> None:
    """Keep-alive after bodies of every kind, read or small enough to be thrown away."""
    with served.connect() as wire:
        assert wire.ask("GET /tiny").body == b"0123456789"
        assert wire.ask("PUT /new", body=b"x" * 200_000).status == 201
        wire.send(head("PUT /chunked", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n")
        assert wire.read().status == 201
        refused = wire.ask("PUT /refused", body=b"x" * 1000)
        assert refused.status == 401
        assert "connection" not in refused.headers
        assert wire.ask("PUT /part", body=b"0123456789abcdef").body == b"0123456789"
        assert wire.ask("GET /last").body == b"GET /last"
    assert (served.app.folder / "chunked").read_bytes() == b"abc"


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    """All heads and bodies in one packet; the last one asks to close."""
    with served.connect() as wire:
        wire.send(
            head("GET /a")
            + head("PUT /stored", length=3)
            + b"abc"
            + b"\r\n"
            + head("GET /tiny")
            + head("GET /z", "Connection: close")
        )
        bodies = [wire.read().body for _ in range(4)]
        assert bodies == [b"GET /a", b"stored", b"0123456789", b"GET /z"]
        assert wire.at_end()


def test_a_head_may_arrive_byte_by_byte(served: Served) -> None:
    """However the head is cut, it is one request, and the body begins behind it."""
    with served.connect() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head("PUT /stored", length=3) + b"abc":
            wire.send(bytes([byte]))
        assert wire.read().status == 201
        assert wire.ask("GET /stored").body == b"abc"


def test_head_never_has_a_body(served: Served) -> None:
    """The length is told, the body is not sent; the next response follows at once."""
    with served.connect() as wire:
        assert wire.ask("HEAD /tiny").headers["content-length"] == "10"
        assert wire.ask("HEAD /blocks").status == 200
        assert wire.ask("HEAD /short").status == 200
        assert wire.ask("GET /notmodified").status == 304
        assert wire.ask("GET /tiny").body == b"0123456789"


def test_a_body_of_unknown_length(served: Served) -> None:
    """Chunked for HTTP/1.1; for HTTP/1.0 the connection's end is the body's."""
    expected = b"one" + b"two" * MIB
    with served.connect() as wire:
        answer = wire.ask("GET /blocks")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body == expected
    with served.connect() as wire:
        wire.send(b"GET /blocks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = wire.read()
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        assert answer.body == expected


def test_http_1_0(served: Served) -> None:
    """Without Host; kept only when asked, and then it says so."""
    with served.connect() as wire:
        wire.send(b"GET /tiny HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        assert wire.read().headers["connection"] == "keep-alive"
        wire.send(b"GET /tiny HTTP/1.0\r\n\r\n")
        answer = wire.read()
        assert answer.headers["connection"] == "close"
        assert answer.body == b"0123456789"
        assert wire.at_end()


def test_the_client_may_close(served: Served) -> None:
    """`Connection: close` in any case and company."""
    with served.connect() as wire:
        assert wire.ask("GET /", "Connection: TE, Close").headers["connection"] == "close"
        assert wire.at_end()


def test_continue_is_sent_when_the_body_is_read(served: Served) -> None:
    """A reader's first look answers 100; then comes the final response."""
    with served.connect() as wire:
        wire.send(head("PUT /stored", "Expect: 100-continue", length=3))
        assert wire.read().status == 100
        wire.send(b"abc")
        assert wire.read().status == 201
        assert wire.ask("GET /stored").body == b"abc"


def test_a_refused_client_is_never_invited(served: Served) -> None:
    """Without 100 the final status comes at once; and whether a body follows is not guessed."""
    with served.connect() as wire:
        wire.send(head("PUT /refused", "Expect: 100-continue", length=3))
        answer = wire.read()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert wire.at_end()


def test_no_response_names_the_software(served: Served) -> None:
    """Neither the application's responses nor the server's own."""
    with served.connect() as wire:
        assert "server" not in wire.ask("GET /").headers
        wire.send(b"nonsense\r\n\r\n")
        assert "server" not in wire.read().headers


def test_the_environment(served: Served) -> None:
    """What an application is told (PEP 3333)."""
    with served.connect() as wire:
        wire.ask("PUT /a%20%C3%A4%2525?q=%20", "X-Two: 1", "x-two: 2", "X_Two: 3", body=b"abc")
        wire.ask("GET http://other.test:81/b?c")
        wire.ask("OPTIONS *")
    first, second, third = served.app.seen
    assert first["PATH_INFO"].encode("latin-1").decode() == "/a ä%25"
    assert first["QUERY_STRING"] == "q=%20"
    assert first["HTTP_X_TWO"] == "1, 2"
    assert (first["CONTENT_LENGTH"], first["wsgi.input"].length) == ("3", 3)
    assert (first["wsgi.url_scheme"], first["HTTP_HOST"]) == ("http", "images.test")
    assert (second["PATH_INFO"], second["HTTP_HOST"]) == ("/b", "other.test:81")
    assert third["PATH_INFO"] == "*"


@pytest.mark.expect_log("GET /short failed")
@pytest.mark.expect_log("GET /shortfile failed")
@pytest.mark.expect_log("GET /halfboom failed")
def test_half_a_response_never_looks_whole(served: Served) -> None:
    """What cannot be completed ends with the connection, without a last chunk."""
    for path in ("/short", "/shortfile", "/halfboom"):
        with served.connect() as wire, pytest.raises((EOFError, ValueError, ConnectionError)):
            wire.ask(f"GET {path}")


@pytest.mark.expect_log("GET /halfboom failed")
@pytest.mark.parametrize("secure", [False, True])
def test_half_a_response_to_http_1_0(tmp_path: Path, tls: TlsFiles, secure: bool) -> None:
    """Where the connection's end is the body's, no client takes this end for that."""
    with serving(tmp_path, tls=tls if secure else None) as served:
        url = f"{'https' if secure else 'http'}://images.test:{served.server.port}/halfboom"
        found = ("--resolve", f"images.test:{served.server.port}:127.0.0.1", "--cacert")
        command = ["curl", "-s", "-0", *found, str(tls.certificate), url]
        curl = subprocess.run(command, capture_output=True, check=False)
    assert (curl.returncode, curl.stdout) == (56, b"half")


@pytest.mark.expect_log("GET /boom failed")
@pytest.mark.expect_log("GET /badheader failed")
@pytest.mark.expect_log("GET /long failed")
def test_a_failing_application_is_a_500(served: Served) -> None:
    """As long as nothing was sent; the client learns nothing about the reason."""
    for path in ("/boom", "/badheader", "/long"):
        with served.connect() as wire:
            answer = wire.ask(f"GET {path}")
            assert answer.status == 500
            assert b"boom" not in answer.body
            assert "set-cookie" not in answer.headers


def test_many_ranges_at_once(served: Served) -> None:
    """Parallel downloads of one file do not disturb each other."""
    data = os.urandom(4 * MIB)
    (served.app.folder / "data").write_bytes(data)
    found: dict[int, bytes] = {}

    def fetch(first: int) -> None:
        with served.connect() as wire:
            last = first + MIB // 4 - 1
            found[first] = wire.ask("GET /data", f"Range: bytes={first}-{last}").body

    threads = [threading.Thread(target=fetch, args=(it * MIB // 4,)) for it in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(found[first] for first in sorted(found)) == data


@pytest.mark.stress
@pytest.mark.parametrize("secure", [False, True])
def test_a_large_file_arrives_whole(huge: Path, tls: TlsFiles, secure: bool) -> None:
    """1 GiB by sendfile and over TLS, to a client that pauses; and back again."""
    files = tls if secure else None
    with process(huge, files) as server:
        port, certificate = server.port, tls.certificate if secure else None
        with (huge / "huge").open("rb") as file:
            expected = hashlib.file_digest(file, "sha256").digest()
        assert _download(port, certificate) == expected
        with Wire(port, certificate) as wire, (huge / "huge").open("rb") as file:
            wire.send(head("PUT /copy", length=GIB + 1))
            while block := file.read(MIB):
                wire.send(block)
            assert wire.read().status == 201
    with (huge / "copy").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == expected
    (huge / "copy").unlink()


def _download(port: int, certificate: Path | None) -> bytes:
    digest = hashlib.sha256()
    left = GIB + 1
    with Wire(port, certificate) as wire:
        wire.send(head("GET /huge"))
        answer = wire.read(head_only=True)
        assert answer.headers["content-length"] == str(left)
        while left:
            digest.update(wire.take(size := min(left, MIB)))
            left -= size
    return digest.digest()


def test_tls_versions(tmp_path: Path, tls: TlsFiles) -> None:
    """An application sees https; nothing older than TLS 1.2 is spoken."""
    with serving(tmp_path, tls=tls) as served:
        with Wire(served.server.port, tls.certificate) as wire:
            assert wire.ask("GET /").status == 200
            assert wire.ask("PUT /refused", body=b"x" * 300_000).status == 401
            assert wire.at_end()
        assert served.app.seen[0]["wsgi.url_scheme"] == "https"
        command = ["openssl", "s_client", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]
        old = subprocess.run(
            [*command, "-connect", f"127.0.0.1:{served.server.port}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        assert old.returncode != 0


def test_plain_http_on_a_tls_port_is_told_so(tmp_path: Path, tls: TlsFiles) -> None:
    """A person who forgot the s gets a sentence."""
    with serving(tmp_path, tls=tls) as served, served.connect() as wire:
        assert b"only HTTPS" in wire.ask("GET /").body


def is_refused(served: Served) -> bool:
    """Whether nobody listens any more."""
    try:
        served.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_stop_lets_running_requests_end(served: Served) -> None:
    """New connections are refused, the running one is answered and closed."""
    with served.connect() as wire, served.connect() as idle:
        assert idle.ask("GET /").status == 200
        wire.send(head("GET /wait"))
        assert served.app.arrived.wait(PATIENCE)
        stopping = threading.Thread(target=served.server.stop, args=(PATIENCE,))
        stopping.start()
        assert idle.at_end()
        wait_until(lambda: is_refused(served), "new connections are refused")
        served.app.go_on.set()
        answer = wire.read()
        assert (answer.body, answer.headers["connection"]) == (b"waited", "close")
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def test_stop_cuts_off_what_does_not_end(served: Served) -> None:
    """An upload that stalls ends as incomplete when the time is up."""
    with served.connect() as wire:
        wire.send(head("PUT /stored", "Expect: 100-continue", length=100))
        assert wire.read().status == 100
        served.server.stop(drain=0)
        assert wire.at_end()
    assert not served.server.open_connections


def test_serve_forever_returns_after_stop(tmp_path: Path) -> None:
    """As a command's main thread uses it."""
    server = Server(SmallApp(tmp_path), ("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    while not server.ready:
        pass
    server.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_taken_port_is_one_clear_error(served: Served, tmp_path: Path) -> None:
    """So is a certificate that cannot be read."""
    taken = served.server.port
    with pytest.raises(InvalidSettings) as caught:
        Server(SmallApp(tmp_path), ("127.0.0.1", taken)).start()
    assert str(caught.value) == f"127.0.0.1:{taken}: cannot listen: Address already in use"
    with pytest.raises(InvalidSettings, match=r"^nowhere\.invalid:80: cannot listen: Name "):
        Server(SmallApp(tmp_path), ("nowhere.invalid", 80)).start()
    missing = TlsFiles(tmp_path / "no.pem", tmp_path / "no.key")
    with pytest.raises(InvalidSettings, match="cannot be used for TLS: No such file"):
        Server(SmallApp(tmp_path), ("127.0.0.1", 0), tls=missing)


def test_ipv6(tmp_path: Path) -> None:
    """The loopback of the other family."""
    server = Server(SmallApp(tmp_path), ("::1", 0))
    server.start()
    try:
        with socket.create_connection(("::1", server.port), timeout=PATIENCE) as client:
            client.sendall(head("GET /", "Connection: close"))
            assert client.makefile("rb").read().endswith(b"GET /")
    finally:
        server.stop()


def test_socket_activation(tmp_path: Path) -> None:
    """A socket that systemd has opened takes the place of the configured address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = f"exec env LISTEN_FDS=1 LISTEN_PID=$$ {sys.executable} -m tests.kit.small_app"
        running = subprocess.Popen(
            ["bash", "-c", f'{command} "$0" 3<&{listening.fileno()}', tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listening.fileno()],
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
    assert running.stdin
    assert running.stdout
    with running:
        assert int(running.stdout.readline()) == port
        with Wire(port) as wire:
            assert wire.ask("GET /").status == 200
        running.stdin.close()


def test_idle_workers_are_used_again(tmp_path: Path) -> None:
    """Requests one after the other need no second thread."""
    with serving(tmp_path, limits=Limits(workers=1)) as served:
        for _ in range(20):
            with served.connect() as wire:
                assert wire.ask("GET /").status == 200
