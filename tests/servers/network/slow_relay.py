"""A server that is far away: what it sends comes late and, on each connection, slowly.

    with slow_relay(server_port) as away:
        store = ...(away.url)

Bytes are relayed as they are, whatever the protocol.  Each request waits for `delay`;
what a client sends is not slowed down otherwise.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BLOCK = 1 << 18


class SlowRelay(socketserver.ThreadingTCPServer):
    """The relay before one server on loopback."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server_port: int, delay: float, rate: int) -> None:
        """`delay` in seconds, `rate` in bytes a second."""
        self.behind = ("127.0.0.1", server_port)
        self.delay = delay
        self.rate = rate
        self.sent = 0
        """Bytes sent to clients so far, heads included."""
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Relay)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, sent: int) -> None:
        """Add to what was sent."""
        with self._lock:
            self.sent += sent

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Relay(socketserver.BaseRequestHandler):
    server: SlowRelay
    request: socket.socket

    def handle(self) -> None:
        with socket.create_connection(self.server.behind) as behind:
            for each in (behind, self.request):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = threading.Thread(target=self._answer, args=(behind,), daemon=True)
            answers.start()
            with suppress(OSError):
                self._ask(behind)
            with suppress(OSError):
                behind.shutdown(socket.SHUT_WR)
            answers.join()

    def _ask(self, behind: socket.socket) -> None:
        self._answered = True
        while block := self.request.recv(_BLOCK):
            if self._answered:  # The first of a new request.
                self._answered = False
                time.sleep(self.server.delay)
            behind.sendall(block)

    def _answer(self, behind: socket.socket) -> None:
        free_at = time.monotonic()
        with suppress(OSError):
            while block := behind.recv(_BLOCK):
                self._answered = True
                free_at = max(free_at, time.monotonic()) + len(block) / self.server.rate
                time.sleep(max(0, free_at - time.monotonic()))
                self.request.sendall(block)
                self.server.count(len(block))
            self.request.shutdown(socket.SHUT_WR)


@contextmanager
def slow_relay(server_port: int, *, delay: float, rate: int) -> Iterator[SlowRelay]:
    """Run a relay before `server_port`: `delay` seconds a request, `rate` bytes a second."""
    with SlowRelay(server_port, delay, rate) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
