"""An HTTP proxy of the tests, between us and a real server, that breaks what it is told to.

    with proxy(server_port) as between:
        store = ...(between.url)
        between.plan = every(10, Fault(cut=1000))

A *plan* decides for each request what goes wrong with it: a `Fault`, or None to forward
it as it is.  Bodies pass in blocks, so that any size may.  The Host header is passed on
unchanged: signatures made for the proxy's address hold.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_BLOCK = 1 << 18
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"}
_BROKEN = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for."""

    number: int
    """From 1, in the order of arrival."""
    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    """Names in lower case."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request, all at once.  Positions are bytes of a body."""

    status: int | None = None
    """Answered by the proxy, with `headers` and `body`; the server is not asked."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Set in the answer; an empty value removes one."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Set in the request before it is passed on; an empty value removes one.

    With another Range the server answers other bytes, with none the whole object.
    """
    cut_request: int | None = None
    """The connections end after so much of the request's body, or all, reached the server."""
    cut: int | None = None
    """The connection ends after so much of the answer's body; -1: before the answer's head."""
    stall: int | None = None
    """Silence after so much of the answer's body, until `Proxy.resume`; -1: before its head."""
    trickle: int | None = None
    """After so much of the answer's body one byte comes five times a second, until `resume`."""
    corrupt: int | None = None
    """One bit of this byte of the answer's body is turned."""
    corrupt_request: int | None = None
    """The same of the request's body."""
    reset: bool = False
    """Connections are cut by RST instead of FIN."""


Plan = Callable[[Request], Fault | None]


def never(_request: Request) -> None:
    """Nothing goes wrong."""
    return


def always(fault: Fault, method: str = "") -> Plan:
    """Each request, or each of one method, goes wrong."""
    return lambda request: fault if method in ("", request.method) else None


def every(count: int, fault: Fault, method: str = "") -> Plan:
    """Each `count`-th request (of one method) goes wrong."""
    numbers = itertools.count(1)

    def plan(request: Request) -> Fault | None:
        counts = method in ("", request.method)
        return fault if counts and next(numbers) % count == 0 else None

    return plan


def first(count: int, fault: Fault, method: str = "") -> Plan:
    """The first `count` requests (of one method) go wrong, later ones do not."""
    numbers = itertools.count()

    def plan(request: Request) -> Fault | None:
        return fault if method in ("", request.method) and next(numbers) < count else None

    return plan


class Proxy(ThreadingHTTPServer):
    """Forwards to one server on loopback.  `plan` may be changed at any time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server_port: int, server_host: str = "127.0.0.1") -> None:
        self.server_address_behind = (server_host, server_port)
        self.plan: Plan = never
        self.requests: list[Request] = []
        """All that came, in order."""
        self.body_sent = 0
        """Bytes of answers' bodies sent to clients."""
        self.body_received = 0
        """Bytes of requests' bodies taken from clients."""
        self.connections = 0
        self._lock = threading.Lock()
        self._stalls = threading.Condition(self._lock)
        self._plans = 1
        """How many there were so far."""
        self._resumed = 0
        """The plans up to this one stall nothing any more."""
        super().__init__(("127.0.0.1", 0), _Forwarder)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def resume(self) -> None:
        """Let all stalled answers go on, and stall none until a new `plan` is set."""
        with self._lock:
            self._resumed = self._plans
            self._stalls.notify_all()

    def set_plan(self, plan: Plan) -> None:
        """Change the plan and forget what was counted."""
        with self._lock:
            self.plan = plan
            self.requests = []
            self.body_sent = self.body_received = 0
            self._plans += 1

    def decide(self, handler: BaseHTTPRequestHandler) -> tuple[int, Fault]:
        """Note a request and ask the plan: its number, and what it says."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            number = len(self.requests) + 1
            request = Request(number, str(handler.command), handler.path, headers)
            self.requests.append(request)
            return self._plans, self.plan(request) or Fault()

    def count(self, sent: int = 0, received: int = 0, connections: int = 0) -> None:
        """Add to the counters."""
        with self._lock:
            self.body_sent += sent
            self.body_received += received
            self.connections += connections

    def wait_resumed(self, plan: int, seconds: float | None = None) -> bool:
        """Wait until what a plan has stalled shall go on, or the proxy ends; whether it does."""
        with self._stalls:
            return self._stalls.wait_for(lambda: self._resumed >= plan, seconds)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Forwarder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self.server.count(connections=1)
        self._behind = http.client.HTTPConnection(*self.server.server_address_behind)

    def finish(self) -> None:
        self._behind.close()
        super().finish()

    def _forward(self) -> None:
        self._plan, fault = self.server.decide(self)
        if fault.status is not None:
            self._answer_ourselves(fault)
            return
        try:
            self._send_request(fault)
            self._send_answer(self._behind.getresponse(), fault)
        except _Cut:
            self._hang_up(fault.reset)
        except _BROKEN:
            self._hang_up(reset=True)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Serve every method: the base class looks for `do_<METHOD>`."""
        if name.startswith("do_"):
            return self._forward
        raise AttributeError(name)

    def log_message(self, *_args: object) -> None:
        """Keep the test's output clean."""

    def _answer_ourselves(self, fault: Fault) -> None:
        assert fault.status is not None
        for block in self._request_body():
            self.server.count(received=len(block))
        self.send_response(fault.status)
        length = str(len(fault.body))
        for name, value in ({"Content-Length": length} | dict(fault.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(fault.body)
            self.server.count(sent=len(fault.body))

    def _send_request(self, fault: Fault) -> None:
        changed = {name.lower(): value for name, value in fault.asked.items()}
        headers = {name.lower(): value for name, value in self.headers.items()} | changed
        is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        # A server closes connections that idle; what breaks here must be meant to.
        self._behind.close()
        self._behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if value and name not in _HOP_BY_HOP and name != "expect":
                self._behind.putheader(name, value)
        self._behind.endheaders()
        passed = 0
        for block in self._request_body():
            self.server.count(received=len(block))
            block = _corrupted(block, fault.corrupt_request, passed)
            if fault.cut_request is not None and passed + len(block) >= fault.cut_request:
                self._behind.send(block[: fault.cut_request - passed])
                raise _Cut
            self._behind.send(b"%x\r\n%b\r\n" % (len(block), block) if is_chunked else block)
            passed += len(block)
        if fault.cut_request is not None:
            raise _Cut
        if is_chunked:
            self._behind.send(b"0\r\n\r\n")

    def _request_body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        rest = int(self.headers.get("Content-Length", 0))
        while rest:
            block = self.rfile.read(min(rest, _BLOCK))
            if not block:
                raise _Cut
            rest -= len(block)
            yield block

    def _send_answer(self, response: http.client.HTTPResponse, fault: Fault) -> None:
        self._break_off(fault, -1)
        is_chunked = "chunked" in (response.getheader("Transfer-Encoding") or "").lower()
        self._send_head(response, fault)
        passed = 0
        while block := response.read(self._next_size(fault, passed)):
            block = _corrupted(block, fault.corrupt, passed)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if is_chunked else block)
            self.server.count(sent=len(block))
            passed += len(block)
            self._break_off(fault, passed)
            while fault.trickle == passed and not self.server.wait_resumed(self._plan, 0.2):
                self.wfile.write(response.read(1))
                self.wfile.flush()
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send_head(self, response: http.client.HTTPResponse, fault: Fault) -> None:
        changed = {name.lower(): value for name, value in fault.headers.items()}
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP | changed.keys():
                self.send_header(name, value)
        for name, value in changed.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self._break_off(fault, 0)

    def _next_size(self, fault: Fault, passed: int) -> int:
        """How much to read so that a block ends where something is to happen."""
        places = (fault.cut, fault.stall, fault.trickle)
        ends = [at for at in places if at is not None and at > passed]
        return min([_BLOCK, *(at - passed for at in ends)])

    def _break_off(self, fault: Fault, passed: int) -> None:
        if fault.stall == passed:
            self.wfile.flush()
            self.server.wait_resumed(self._plan)
        if fault.cut == passed:
            raise _Cut

    def _hang_up(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # `shutdown`, which the server would do, sends FIN first.
            self.connection.close()


class _Cut(Exception):
    """The connection is to end here."""


def _corrupted(block: bytes, position: int | None, passed: int) -> bytes:
    """A block that begins `passed` bytes into its body, with one bit turned at `position`."""
    if position is None or not passed <= position < passed + len(block):
        return block
    changed = bytearray(block)
    changed[position - passed] ^= 1
    return bytes(changed)


@contextmanager
def proxy(
    server_port: int, certificate: tuple[Path, Path] | None = None, server_host: str = "127.0.0.1"
) -> Iterator[Proxy]:
    """Run a proxy before `server_port`; with (certificate, key) it speaks TLS to its clients."""
    server = Proxy(server_port, server_host)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.resume()
        server.shutdown()
        thread.join()
        server.server_close()
