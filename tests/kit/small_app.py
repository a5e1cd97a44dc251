"""A small WSGI application for the tests of the HTTP server, alone or as a process.

GET sends a file of its folder, PUT stores one; the other paths do what one test needs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from catalog.errors import CatalogError
from web.exchange.body import Body, FileRange
from web.exchange.environ import SEND
from web.server.listening import TlsFiles
from web.server.server import Server

MIB = 1024 * 1024
StartResponse = Callable[..., object]
Answer = tuple[str, bytes]


class SmallApp:
    """`seen` has the environment of every request; `go_on` lets `/wait` answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        """As wsgidav's, a generator: everything happens while it is iterated."""
        self.seen.append(environ)
        name = environ["PATH_INFO"].strip("/")
        special = getattr(self, f"_{name}", None)
        method = environ["REQUEST_METHOD"]
        if special:
            yield from special(environ, start_response)
        elif method in ("GET", "HEAD") and (self.folder / name).is_file():
            self._send(self.folder / name, environ, start_response)
        elif method in ("PUT", "POST"):
            yield from _text(start_response, *self._store(name, environ["wsgi.input"]))
        else:
            yield from _text(start_response, "200 OK", f"{method} {environ['PATH_INFO']}".encode())

    def _send(self, path: Path, environ: dict[str, Any], start_response: StartResponse) -> None:
        fd = os.open(path, os.O_RDONLY)
        offset, size = 0, path.stat().st_size
        status = "200 OK"
        if "HTTP_RANGE" in environ:
            first, last = environ["HTTP_RANGE"].removeprefix("bytes=").split("-")
            offset, size = int(first), int(last) + 1 - int(first)
            status = "206 Partial Content"
        environ[SEND] = FileRange(fd, offset, size)
        start_response(status, [("Content-Length", str(size))])

    def _store(self, name: str, body: Body) -> Answer:
        fd = os.open(self.folder / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        block = memoryview(bytearray(MIB))
        offset = 0
        try:
            while count := body.readinto(block):
                os.pwrite(fd, block[:count], offset)
                offset += count
        except CatalogError as error:
            return "400 Bad Request", str(error).encode()
        finally:
            os.close(fd)
        return "201 Created", b"stored"

    def _refused(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        yield from _text(start_response, "401 Unauthorized", b"who are you?")

    def _xml(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        try:
            answer = "200 OK", environ["wsgi.input"].read()
        except CatalogError as error:
            answer = "413 Content Too Large", str(error).encode()
        yield from _text(start_response, *answer)

    def _part(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        """Reads ten bytes of the body and no more."""
        yield from _text(start_response, "200 OK", environ["wsgi.input"].read(10))

    def _blocks(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        """A body of unknown length."""
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        yield b""
        yield b"two" * MIB

    def _endless(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        """A body of unknown length, by blocks."""
        start_response("200 OK", [])
        yield from repeat(bytes(MIB))

    def _short(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        yield b"short"

    def _long(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        yield b"long"

    def _shortfile(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        """A file that is truncated after its size was told."""
        environ[SEND] = FileRange(os.open(self.folder / "tiny", os.O_RDONLY), 0, 100)
        start_response("200 OK", [("Content-Length", "100")])
        yield from ()

    def _boom(self, _environ: object, _start_response: StartResponse) -> Iterator[bytes]:
        raise RuntimeError("boom")

    def _halfboom(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"half"
        raise RuntimeError("boom")

    def _badheader(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("X-Name", "a\r\nSet-Cookie: b")])
        yield b"never"

    def _notmodified(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        start_response("304 Not Modified", [("ETag", '"1"')])
        yield b"never"

    def _wait(self, _environ: object, start_response: StartResponse) -> Iterator[bytes]:
        self.arrived.set()
        assert self.go_on.wait(30)
        yield from _text(start_response, "200 OK", b"waited")


def _text(start_response: StartResponse, status: str, text: bytes) -> list[bytes]:
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


def main(folder: Path, *tls: str) -> None:
    """Serve a folder until the standard input ends; prints the port."""
    files = TlsFiles(*map(Path, tls)) if tls else None
    server = Server(SmallApp(folder), ("127.0.0.1", 0), tls=files)
    server.start()
    print(server.port, flush=True)  # noqa: T201
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
