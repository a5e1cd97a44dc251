"""Answers `/metrics`, `/healthz` and `/readyz` on a loopback address.

Scope: HTTP for monitoring only, with a server of its own: it answers while the frontend hangs.
`/healthz` says whether the process answers requests: if not, restart it.  `/readyz` says whether
it can do its work: if not, send requests elsewhere.  Threading: `start` and `stop` in any thread;
each request has one.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6
from typing import Any

from catalog.errors import InvalidSettings
from catalog.process import start_time, this_process
from catalog.service.health import Health, Pulse
from catalog.service.metrics import CONTENT_TYPE, Exposition
from catalog.settings import host_and_port, state_folder
from catalog.tree.vfs import Vfs

_PATIENCE = 5.0
"""Seconds in which a client has to send its request and to take the answer."""
_CLIENTS = 8
"""Clients that are answered at the same time."""


@contextmanager
def monitored(
    address: str | None, vfs: Vfs, pulse: Pulse, process: Mapping[str, str]
) -> Iterator[None]:
    """Answer at `address`, HOST:PORT, during the block; None for not at all.

    `process` are labels that tell this process from others.  Raises InvalidSettings.
    """
    if address is None:
        yield
        return
    health = Health(vfs, pulse)
    server = _Server(address, health, process)
    health.start()
    server.start()
    told = _tell(server.told_address, process)
    try:
        yield
    finally:
        if told is not None:
            told.unlink(missing_ok=True)
        server.stop()
        health.stop()


def targets_folder() -> Path:
    """The folder with one file for each process that is monitored, as `file_sd_configs` reads."""
    return state_folder() / "monitoring"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str, health: Health, process: Mapping[str, str]) -> None:
        self.health = health
        self.exposition = Exposition(health, process)
        self._room = threading.BoundedSemaphore(_CLIENTS)
        host, port = host_and_port(address)
        if ":" in host:
            self.address_family = AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise InvalidSettings("metrics", f"{address}: {error.strerror}") from error

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the DNS for our name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def told_address(self) -> str:
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"{host}:{self.server_port}"

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="monitoring", daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version = "imagefs"
    sys_version = ""

    def do_GET(self) -> None:
        health = self.server.health
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(HTTPStatus.OK, self.server.exposition.text(), CONTENT_TYPE)
            case "/healthz":
                self._answer_well({} if health.is_alive else {"loop": "does not turn"})
            case "/readyz":
                self._answer_well(health.missing())
            case _:
                text = b"there are /metrics, /healthz and /readyz\n"
                self._answer(HTTPStatus.NOT_FOUND, text)

    def _answer_well(self, missing: Mapping[str, str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK
        lines = [f"{name}: {reason}" for name, reason in missing.items()] or ["ok"]
        self._answer(status, "".join(f"{ascii(line)[1:-1]}\n" for line in lines).encode())

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Writes no line: a scrape comes every few seconds."""


def _tell(address: str, process: Mapping[str, str]) -> Path | None:
    """Write where this process is monitored; the files of ended processes are removed.

    Returns the file, or None if it cannot be written: then only a fixed port is found.
    """
    own = this_process()
    folder = targets_folder()
    file = folder / f"{own.pid}.{own.started}.json"
    text = json.dumps([{"targets": [address], "labels": {**process, "pid": str(own.pid)}}])
    with suppress(OSError):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for other in folder.glob("*.json"):
            pid, _, started = other.stem.partition(".")
            if pid.isdecimal() and str(start_time(int(pid))) != started:
                other.unlink(missing_ok=True)
        part = file.with_suffix(".part")
        part.write_text(text + "\n")
        part.chmod(0o644)
        part.rename(file)
        return file
    return None
