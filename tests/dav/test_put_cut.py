"""A PUT that is cut off, anywhere and in any way, never becomes an image."""

from __future__ import annotations

import random
import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog.model.status import Status
from catalog.model.tree import Entry
from catalog.tree.vfs import Vfs
from dav.app import App, render_error
from tests.dav.server import Served
from tests.kit.catalog import new_catalog, read, settings_at, some_bytes
from tests.kit.daemon import wait_until
from tests.kit.wire import Wire, head
from web.exchange.limits import Limits
from web.login.basic import Authentication
from web.server.server import Server
from web.settings import DavSettings

DATA = some_bytes(2_500_001)
"""More than two of the blocks that an upload is written in."""
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)
CUTS = 50
WAYS = ("fin", "rst", "stall")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that waits a second for a client; nothing is left of what was cut off."""
    folder = tmp_path_factory.mktemp("cut")
    catalog = new_catalog(settings_at(folder))
    vfs = Vfs(catalog)
    settings = DavSettings.model_validate({"anonymous": "write"})
    app = Authentication(App(vfs), catalog, settings, render_error)
    server = Server(app, ("127.0.0.1", 0), limits=Limits(transfer_seconds=1))
    server.start()
    try:
        yield Served(vfs, server.port)
        assert staged(folder) == []
    finally:
        server.stop()
        vfs.close()


def staged(folder: Path) -> list[Path]:
    """The staging files of all stores."""
    return [*folder.glob("staging/*"), *folder.glob("*/.staging/*")]


def find(vfs: Vfs, path: str) -> Entry | None:
    """The entry of that path, if it is there."""
    place = vfs.place(path)
    found = {member.name: member for member in vfs.members(place.folder)}.get(place.name)
    return found if isinstance(found, Entry) else None


def send_part(served: Served, path: str, cut: int, way: str, *, chunked: bool) -> None:
    """Send the first `cut` bytes of a PUT's body, and end in that way."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(DATA)}"
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", framing) + (CHUNKED if chunked else DATA)[:cut])
        if way == "rst":
            # Earlier the server might not even have seen the request.
            wait_until(lambda: find(served.vfs, path), "the upload has begun")
            # Close with a reset, and nothing that is still on its way (socket(7)).
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if way == "fin":
            wire.socket.shutdown(socket.SHUT_WR)
        assert wire.read().status == 400


@pytest.mark.stress
@pytest.mark.parametrize("way", WAYS)
def test_an_upload_that_is_cut_off(served: Served, way: str) -> None:
    """At 50 random places: killed, with the reason as its message, and a retry succeeds."""

    def cut_off(number: int) -> None:
        path, chunked = f"/file/{way}{number}.img", bool(number % 2)
        cut = random.Random(path).randrange(len(CHUNKED if chunked else DATA))
        send_part(served, path, cut, way, chunked=chunked)
        wait_until(lambda: served.image(path).status is Status.KILLED, f"{path} is killed")
        assert re.search(r"after \d+( of 2500001)? bytes", served.image(path).message), cut
        assert served.ask(f"PUT {path}", body=DATA).status == 201
        assert served.image(path).status is Status.ACTIVE
        assert read(served.vfs, path) == DATA

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(cut_off, range(CUTS)))


@pytest.mark.parametrize("way", ["fin", "stall"])
def test_a_replacement_that_is_cut_off(served: Served, way: str) -> None:
    """The image that was to be replaced is untouched, and nothing lies beside it."""
    path = f"/other/{way}.img"
    before = served.add(path, b"the old data")
    send_part(served, path, 1_500_000, way, chunked=False)
    assert served.image(path).id == before.id
    assert read(served.vfs, path) == b"the old data"
    names = [member.name for member in served.vfs.members(served.vfs.place(path).folder)]
    assert [name for name in names if name.endswith(".put")] == []
    assert served.ask(f"PUT {path}", body=DATA).status == 204
    assert read(served.vfs, path) == DATA


@pytest.mark.parametrize("cut", [0, 1, 1_048_576, len(DATA) - 1])
def test_a_length_that_does_not_come(served: Served, cut: int) -> None:
    """A complete body that is shorter than `X-Expected-Entity-Length` says."""
    path = f"/file/short{cut}.img"
    with Wire(served.port) as wire:
        lines = (f"X-Expected-Entity-Length: {len(DATA)}", "Transfer-Encoding: chunked")
        chunk = b"%x\r\n%b\r\n" % (cut, DATA[:cut]) if cut else b""
        wire.send(head(f"PUT {path}", *lines) + chunk + b"0\r\n\r\n")
        assert wire.read().status == 400
    assert served.image(path).status is not Status.ACTIVE
    assert served.ask(f"PUT {path}", body=DATA).status == 201
    assert read(served.vfs, path) == DATA


def test_a_retry_waits_for_the_first_to_end(served: Served) -> None:
    """A client that tries again before the server has missed it succeeds, whole or in parts."""
    path = "/file/two.img"
    with Wire(served.port) as first:
        first.send(head(f"PUT {path}", f"Content-Length: {len(DATA)}") + DATA[:2_000_000])
        wait_until(lambda: find(served.vfs, path), "the upload has begun")
        wait_until(lambda: served.image(path).status is Status.SAVING, "it has data")
        assert served.ask(f"PUT {path}", body=DATA).status == 201
        assert first.read().status == 400
    assert read(served.vfs, path) == DATA
