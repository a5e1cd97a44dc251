"""Raw HTTP for tests: exactly the bytes a test wants, and responses read by the book."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.kit.daemon import memory
from tests.kit.small_app import SmallApp
from web.exchange.forwarded import NO_PROXIES, Proxies
from web.exchange.limits import DEFAULT_LIMITS, Limits
from web.server.listening import TlsFiles
from web.server.server import Server

PATIENCE = 30.0
"""A deadline, so that no failing test hangs."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def basic(name: str, password: str = "secret") -> str:
    """The header that a user logs in with (RFC 7617)."""
    return f"Authorization: Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


class Wire:
    """A client's connection."""

    def __init__(
        self, port: int, certificate: Path | None = None, address: str = "127.0.0.1"
    ) -> None:
        """`address` is the client's own: all of 127.0.0.0/8 are this host's."""
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=PATIENCE, source_address=(address, 0)
        )
        if certificate:
            context = ssl.create_default_context(cafile=str(certificate))
            self.socket = context.wrap_socket(self.socket, server_hostname="images.test")
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send these bytes and nothing else."""
        self.socket.sendall(data)

    def send_for_ever(self, data: bytes) -> None:
        """Send the data again and again; returns when the server has cut the connection."""
        with suppress(ConnectionError):
            while True:
                self.socket.sendall(data)

    def ask(
        self, request: str, *headers: str, body: bytes = b"", length: int | None = None
    ) -> Answer:
        """Send a good request, `METHOD TARGET`, and read the response."""
        self.send(head(request, *headers, length=len(body) if length is None else length) + body)
        return self.read(head_only=request.startswith("HEAD "))

    def read(self, *, head_only: bool = False) -> Answer:
        """Read a response; EOFError when the server has closed the connection instead."""
        status = int(self._line().split()[1])
        headers = {}
        while line := self._line():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        bodiless = head_only or status < 200 or status in (204, 304)
        return Answer(status, headers, b"" if bodiless else self._body(headers))

    def take(self, count: int) -> bytes:
        """Read some bytes of a body; EOFError when there are no more so many."""
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def at_end(self) -> bool:
        """Wait for what comes next: True when it is the end of the connection."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(f"the response ends with {line!r}")
        return line[:-2].decode()

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            body = self._file.read(int(headers["content-length"]))
            if len(body) != int(headers["content-length"]):
                raise EOFError(f"only {len(body)} bytes")
            return body
        if headers.get("transfer-encoding") != "chunked":
            return self._file.read()
        body = b""
        while size := int(self._line(), 16):
            body += self._file.read(size)
            assert self._line() == ""
        assert self._line() == ""
        return body


def head(request: str, *headers: str, length: int = 0) -> bytes:
    """A good head; Content-Length only where there is a body."""
    lines = [f"{request} HTTP/1.1", "Host: images.test", *headers]
    if length:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Served:
    """A server in this process, and its application."""

    server: Server
    app: SmallApp

    def connect(self, address: str = "127.0.0.1") -> Wire:
        """Connect to it, from an address of this host."""
        return Wire(self.server.port, address=address)


@contextmanager
def serving(
    folder: Path,
    *,
    tls: TlsFiles | None = None,
    limits: Limits = DEFAULT_LIMITS,
    proxies: Proxies = NO_PROXIES,
) -> Iterator[Served]:
    """Run a server in this process."""
    app = SmallApp(folder)
    server = Server(app, ("127.0.0.1", 0), tls=tls, limits=limits, proxies=proxies)
    server.start()
    try:
        yield Served(server, app)
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class Process:
    """A server in a process of its own."""

    pid: int
    port: int

    def memory(self) -> dict[str, int]:
        """VmRSS, VmHWM and so on, in bytes (proc(5))."""
        return memory(self.pid)


@contextmanager
def process(folder: Path, tls: TlsFiles | None = None) -> Iterator[Process]:
    """Run a server in another process: for its memory, or for a processor of its own."""
    files = [tls.certificate, tls.key] if tls else []
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.small_app", folder, *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert running.stdin
    assert running.stdout
    with running:
        yield Process(running.pid, int(running.stdout.readline()))
        running.stdin.close()


def make_certificate(folder: Path) -> TlsFiles:
    """A certificate for `images.test`."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=images.test -addext subjectAltName=DNS:images.test "
        "-keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return TlsFiles(folder / "cert.pem", folder / "key.pem")
