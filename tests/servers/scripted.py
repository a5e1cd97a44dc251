"""Web servers on loopback for the tests of the http store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers.nginx import WebServer, nginx

__all__ = [
    "Answer",
    "ScriptedServer",
    "WebServer",
    "asked_range",
    "nginx",
    "respond",
    "scripted",
]


Answer = Callable[[BaseHTTPRequestHandler], None]


class ScriptedServer(ThreadingHTTPServer):
    """Answers every GET by a function of the test: for what no real server does."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        self.connections = 0
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer.connections += 1

            def do_GET(self) -> None:
                outer.requests.append(self.path)
                answer(self)

            def log_message(self, *_args: object) -> None:
                """Keep the test's output clean."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/image"


@contextmanager
def scripted(answer: Answer) -> Iterator[ScriptedServer]:
    """Run a ScriptedServer."""
    server = ScriptedServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def respond(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes = b""
) -> None:
    """Send an answer; Content-Length is the body's unless `headers` says otherwise."""
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def asked_range(handler: BaseHTTPRequestHandler) -> tuple[int, int]:
    """First and last byte of the request's Range."""
    first, last = handler.headers["Range"].removeprefix("bytes=").split("-")
    return int(first), int(last)
