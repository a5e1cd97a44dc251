"""The tests' own proxy does to an exchange what it is told to, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from requests import exceptions

from tests.servers.network.breaking_proxy import Fault, Proxy, always, every, first, proxy

DATA = bytes(range(256)) * 4096


class Echo(BaseHTTPRequestHandler):
    """Answers GET with DATA or the range of it, and PUT with the body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        begin, end = 0, len(DATA)
        if asked := self.headers.get("Range"):
            begin, last = map(int, asked.removeprefix("bytes=").split("-"))
            end = last + 1
        self.respond(206 if asked else 200, DATA[begin:end], f"bytes {begin}-{end - 1}/{len(DATA)}")

    def do_PUT(self) -> None:
        self.respond(201, self.rfile.read(int(self.headers["Content-Length"])), "")

    def respond(self, status: int, body: bytes, content_range: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Keep the test's output clean."""


class EchoServer(ThreadingHTTPServer):
    """Its clients go away in the middle, which is no news."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def between() -> Iterator[Proxy]:
    """A proxy before the echo server."""
    server = EchoServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    with proxy(server.server_port) as found:
        yield found
    server.shutdown()
    server.server_close()


def test_forwards_unchanged(between: Proxy) -> None:
    """Without a plan the client sees the server, and the proxy counts."""
    with requests.Session() as session:
        assert session.get(between.url).content == DATA
        ranged = session.get(between.url, headers={"Range": "bytes=5-9"})
        assert (ranged.status_code, ranged.content) == (206, DATA[5:10])
        assert session.put(between.url, DATA).content == DATA
    assert [r.method for r in between.requests] == ["GET", "GET", "PUT"]
    assert between.requests[1].headers["range"] == "bytes=5-9"
    assert (between.connections, between.body_received) == (1, len(DATA))
    assert between.body_sent == 2 * len(DATA) + 5


@pytest.mark.parametrize("reset", [False, True])
def test_cuts_answers(between: Proxy, reset: bool) -> None:
    """So many bytes come, then the connection's end; with -1, not even a head."""
    between.plan = always(Fault(cut=100_001, reset=reset))
    with pytest.raises((exceptions.ChunkedEncodingError, exceptions.ConnectionError)) as caught:
        requests.get(between.url, timeout=10)
    if not reset:
        inner = caught.value.args[0].args[-1]
        assert isinstance(inner, IncompleteRead | HTTPException)
    assert between.body_sent == 100_001
    between.plan = always(Fault(cut=-1, reset=reset))
    with pytest.raises(exceptions.ConnectionError) as caught:
        requests.get(between.url, timeout=10)
    if not reset:
        assert isinstance(caught.value.args[0].args[1], RemoteDisconnected)


def test_cuts_requests(between: Proxy) -> None:
    """The server gets no whole body, the client no answer."""
    between.plan = always(Fault(cut_request=1000))
    with pytest.raises(exceptions.ConnectionError):
        requests.put(between.url, DATA, timeout=10)
    with pytest.raises(exceptions.ConnectionError):
        requests.get(between.url, timeout=10)


def test_answers_itself_now_and_then(between: Proxy) -> None:
    """`every` and `first` count the requests of their method."""
    between.plan = every(3, Fault(status=503, headers={"Retry-After": "2"}), "PUT")
    with requests.Session() as session:
        assert session.get(between.url).status_code == 200
        answers = [session.put(between.url, b"x") for _ in range(6)]
        assert [a.status_code for a in answers] == [201, 201, 503, 201, 201, 503]
        assert answers[2].headers["Retry-After"] == "2"
        between.set_plan(first(2, Fault(status=500)))
        assert [session.get(between.url).status_code for _ in range(3)] == [500, 500, 200]
    assert len(between.requests) == 3


def test_changes_heads_and_bytes(between: Proxy) -> None:
    """Another range asked for, another Content-Range told, a bit turned."""
    asked = {"Range": "bytes=10-19"}
    between.plan = always(Fault(asked={"Range": "bytes=20-29"}))
    assert requests.get(between.url, headers=asked).content == DATA[20:30]
    between.plan = always(Fault(asked={"Range": ""}))
    assert requests.get(between.url, headers=asked).status_code == 200
    between.plan = always(Fault(headers={"Content-Range": "bytes 0-9/10"}))
    answer = requests.get(between.url, headers=asked)
    assert answer.headers["Content-Range"] == "bytes 0-9/10"
    assert answer.content == DATA[10:20]
    between.plan = always(Fault(corrupt=300_000))
    found = requests.get(between.url).content
    assert [i for i in range(len(DATA)) if found[i] != DATA[i]] == [300_000]


def test_stalls_until_resumed(between: Proxy) -> None:
    """A stalled answer comes whole when it is let go."""
    between.plan = always(Fault(stall=5000))
    with requests.get(between.url, stream=True, timeout=10) as answer:
        assert answer.raw.read(5000) == DATA[:5000]
        between.resume()
        assert answer.raw.read() == DATA[5000:]


def test_new_plan_does_not_stall_what_was_resumed(between: Proxy) -> None:
    """Whatever a plan stalls is let go by `resume`, also when another follows at once."""
    between.set_plan(always(Fault(stall=0)))
    with requests.get(between.url, stream=True, timeout=10) as answer:
        between.resume()
        between.set_plan(always(Fault(stall=5000)))
        assert answer.content == DATA
    between.resume()


def test_trickles(between: Proxy) -> None:
    """Bytes come one by one, often enough to look alive; `resume` sends the rest."""
    between.set_plan(always(Fault(trickle=1000)))
    with requests.get(between.url, stream=True, timeout=10) as answer:
        assert answer.raw.read(1003) == DATA[:1003]
        between.resume()
        assert answer.raw.read() == DATA[1003:]
