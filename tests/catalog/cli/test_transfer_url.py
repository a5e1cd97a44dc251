"""`imagefs add URL` from servers that know no ranges: a copy needs none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalog.cli.program import imagefs as program
from tests.kit.catalog import some_bytes
from tests.kit.configuration import configure
from tests.servers.scripted import Answer, respond, scripted

DATA = some_bytes(3_000_001)

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command on a catalog whose web store may ask this host."""
    config = configure(tmp_path, sections="[cache]\nsize = 0")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(program, ["--config", str(config), *arguments])

    assert run("init").exit_code == 0
    return run


def whole(handler: BaseHTTPRequestHandler) -> None:
    """All of it, whatever was asked for."""
    respond(handler, 200, {}, DATA)


def in_chunks(handler: BaseHTTPRequestHandler, *, cut: bool = False) -> None:
    """All of it in chunks, without its size; `cut` in the middle of one."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for at in range(0, len(DATA), 100_000):
        block = DATA[at : at + 100_000]
        handler.wfile.write(b"%x\r\n" % len(block))
        if cut and at > 1_000_000:
            handler.wfile.write(block[:1000])
            handler.close_connection = True
            return
        handler.wfile.write(block + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Less than was announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(DATA)))
    handler.end_headers()
    handler.wfile.write(DATA[:1_000_000])
    handler.close_connection = True


def without_an_end(handler: BaseHTTPRequestHandler) -> None:
    """Neither a size nor chunks: the end of the connection is all there is."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(DATA)
    handler.close_connection = True


@pytest.mark.parametrize("answer", [whole, in_chunks])
def test_a_server_without_ranges(run: Run, answer: Answer) -> None:
    """What it sends at once is what is added."""
    with scripted(answer) as server:
        result = run("add", server.url, "--name", "a.raw")
    assert result.exit_code == 0, result.stderr
    found = json.loads(run("show", "/file/a.raw", "--json").stdout)
    assert found["os_hash_value"] == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (cut, "image"),
        (lambda handler: in_chunks(handler, cut=True), "image"),
        (without_an_end, "neither the size nor where it ends"),
        (lambda handler: respond(handler, 404, {}, b"no"), "not found"),
        (lambda handler: respond(handler, 403, {}, b"no"), "403"),
    ],
)
def test_what_is_not_all_of_it_is_not_added(run: Run, answer: Answer, reason: str) -> None:
    """One line, and nothing is left."""
    with scripted(answer) as server:
        result = run("add", server.url, "--name", "a.raw")
    assert result.exit_code != 0
    # The server's own complaints, of a client that has gone, are there as well.
    (told,) = [line for line in result.stderr.splitlines() if line.startswith("imagefs: ")]
    assert reason in told
    assert json.loads(run("list", "--json").stdout) == []
