"""Web servers on loopback for the tests of the http store."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

NGINX = """
user root;
daemon off;
pid {folder}/pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        root {folder}/www;
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /out-of-tls {{ return 302 http://127.0.0.1:{port}/a; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class WebServer:
    """A running nginx that serves the files of `root`."""

    root: Path
    url: str
    tls_url: str
    """For the host name `images.test`, which the caller resolves."""
    certificate: Path


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nginx(folder: Path) -> Iterator[WebServer]:
    """Run nginx; skips the test where it neither is nor can be installed."""
    program = _nginx_program()
    (folder / "www").mkdir()
    _make_certificate(folder)
    port, tls_port = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, tls_port=tls_port))
    process = subprocess.Popen([program, "-c", str(config), "-p", str(folder)])
    try:
        _wait_for(port, process)
        yield WebServer(
            folder / "www",
            f"http://127.0.0.1:{port}",
            f"https://images.test:{tls_port}",
            folder / "cert.pem",
        )
    finally:
        process.terminate()
        process.wait()


def _nginx_program() -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None and os.geteuid() == 0:
        # RUNLEVEL=1: the package must not start a server of its own.
        install = ["apt-get", "install", "-y", "--no-install-recommends", "nginx-light"]
        subprocess.run(install, env=os.environ | {"RUNLEVEL": "1"}, check=False)
        found = shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed (package nginx-light)")
    return found


def _make_certificate(folder: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=images.test -addext subjectAltName=DNS:images.test "
        "-keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nginx ended with status {process.returncode}")


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
