"""`imagefs dav` against Apache's mod_dav, nginx with TLS and `rclone serve webdav`.

The client is the same for all of them, a process of its own, and does next to nothing: it
sends from the page cache and throws away what it receives.
"""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

from catalog.model.access import Principal
from catalog.model.tree import Entry
from catalog.tree.vfs import Vfs
from tests.bench import measure, peers
from tests.bench.conftest import Table
from tests.bench.measure import GIB, MIB
from tests.kit.daemon import Daemon
from tests.kit.large_folder import fill, name_of
from tests.kit.service import Service, service
from tests.kit.wire import make_certificate
from web.server.listening import TlsFiles

SIZE = 2 * GIB
PUT_SIZE = GIB
RANGES = 64
EACH = 16
"""Ranges that each of the parallel clients asks for, one after the other."""
MEMBERS = 10_000
MEMORY_LIMIT = 200 * MIB

OURS = "imagefs"
_LISTINGS = {
    "as rclone asks": "<D:prop><D:displayname/><D:getlastmodified/><D:getcontentlength/>"
    '<D:resourcetype/><D:getcontenttype/><oc:checksums xmlns:oc="http://owncloud.org/ns"/></D:prop>',
    "all properties": "<D:allprop/>",
    "four properties": "<D:prop><D:getlastmodified/><D:getcontentlength/><D:resourcetype/>"
    "<D:getetag/></D:prop>",
}
"""What clients ask of each member of a folder."""


class Client:
    """A connection; receives into one buffer."""

    def __init__(self, url: str, path: str, tls: TlsFiles | None = None) -> None:
        parts = urlsplit(url)
        self._path = path
        self._host = parts.hostname
        self._buffer = memoryview(bytearray(MIB))
        self._socket = socket.create_connection(("127.0.0.1", parts.port or 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.create_default_context(cafile=str(tls.certificate))
            self._socket = context.wrap_socket(self._socket, server_hostname="images.test")

    def get(self, first: int = 0, size: int = SIZE) -> None:
        """Receive a range of the image."""
        self._send("GET", f"Range: bytes={first}-{first + size - 1}")
        assert self._receive(b"206") == size

    def put(self, source: Path, name: str) -> None:
        """Send a file as a new member of the folder."""
        size = source.stat().st_size
        self._send("PUT", f"Content-Length: {size}", name=name)
        with source.open("rb") as file:
            self._socket.sendfile(file)
        self._receive(b"201")

    def list(self, wanted: str) -> None:
        """Receive some properties of each member of the folder."""
        body = f'<D:propfind xmlns:D="DAV:">{wanted}</D:propfind>'.encode()
        headers = ("Depth: 1", "Content-Type: application/xml", f"Content-Length: {len(body)}")
        self._send("PROPFIND", *headers, body=body)
        assert self._receive(b"207") > MEMBERS * 100

    def ask(self, method: str, status: bytes, name: str, *headers: str, body: bytes = b"") -> None:
        """Any request for a member of the folder, or for the folder itself if `name` is empty."""
        if method == "PUT":
            headers = (f"Content-Length: {len(body)}", *headers)
        self._send(method, *headers, name=name, body=body)
        self._receive(status)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _send(self, method: str, *headers: str, name: str = "", body: bytes = b"") -> None:
        lines = [f"{method} {self._path}{name} HTTP/1.1", f"Host: {self._host}", *headers]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def _receive(self, status: bytes) -> int:
        """Throw a response away; return how many bytes its body had."""
        head = b""
        while b"\r\n\r\n" not in head:
            block = self._socket.recv(4096)
            assert block, head
            head += block
        head, _, body = head.partition(b"\r\n\r\n")
        assert head.split()[1] == status, head
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            return self._receive_chunks(body)
        left = int(fields.get(b"content-length", 0))
        done = len(body)
        # Thrown away without being copied (tcp(7)); what TLS brings has to be decrypted.
        flags = 0 if isinstance(self._socket, ssl.SSLSocket) else socket.MSG_TRUNC
        while done < left:
            done += self._take(flags)
        return left

    def _take(self, flags: int = 0) -> int:
        size = self._socket.recv_into(self._buffer, 0, flags)
        assert size, "the server has closed the connection"
        return size

    def _receive_chunks(self, body: bytes) -> int:
        done, end = len(body), body[-5:]
        while end != b"0\r\n\r\n":
            size = self._take()
            done += size
            end = (end + self._buffer[max(0, size - 5) : size].tobytes())[-5:]
        return done


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is compared, by name: each one's URL and the path of the image or folder there."""

    urls: dict[str, str]
    ours: Service
    folder: Path

    def path(self, name: str) -> str:
        """Where the servers' folder is below their URL."""
        return "/file/" if name == OURS else "/"

    def client(self, name: str, path: str = "", tls: TlsFiles | None = None) -> Client:
        """A connection to one of them, for the member at `path` of its folder."""
        return Client(self.urls[name], self.path(name) + path, tls)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with the other servers' own, `www`: they do not run as root."""
    with TemporaryDirectory(prefix="imagefs-bench-") as name:
        (Path(name) / "www").mkdir()
        for path in (Path(name), Path(name) / "www"):
            path.chmod(0o777)
        yield Path(name)


@pytest.fixture
def candidates(folder: Path) -> Iterator[Candidates]:
    """Ours, Apache and rclone, each over a folder of its own on the same disk."""
    with ExitStack() as stack:
        ours = stack.enter_context(service(Daemon(folder / "host")))
        urls = {
            OURS: f"http://127.0.0.1:{ours.port}",
            "Apache": stack.enter_context(peers.apache(folder)),
            "rclone": stack.enter_context(peers.rclone(folder)),
        }
        yield Candidates(urls, ours, folder)


def test_get(candidates: Candidates, table: Table) -> None:
    """An image of 2 GiB from the page cache, and parallel ranges of it."""
    _add_image(candidates.folder, candidates.ours)
    works = {
        name: partial(_get, partial(candidates.client, name, "image.img"))
        for name in candidates.urls
    }
    times = measure.in_turns(works)
    _compare(table, "GET of 2 GiB", times, SIZE, {"Apache": "≥ 1", "rclone": "≥ 5"})
    works = {
        name: partial(_get_ranges, partial(candidates.client, name, "image.img"))
        for name in candidates.urls
    }
    times = measure.in_turns(works)
    _compare(table, "64 parallel ranges of 1 MiB", times, RANGES * EACH * MIB, {"Apache": "≥ 0.5"})
    _note_memory(table, candidates.ours, "GET")


def test_tls(folder: Path, table: Table) -> None:
    """The same over TLS, against nginx."""
    tls = make_certificate(folder)
    catalog = Daemon(folder / "host")
    with service(catalog, tls=tls) as ours, peers.nginx(folder, tls) as nginx:
        _add_image(folder, ours)
        candidates = Candidates(
            {OURS: f"https://images.test:{ours.port}", "nginx": nginx}, ours, folder
        )
        works = {
            name: partial(_get, partial(candidates.client, name, "image.img", tls))
            for name in candidates.urls
        }
        times = measure.in_turns(works)
        _compare(table, "GET of 2 GiB over TLS", times, SIZE, {"nginx": "≥ 0.9"})
        _note_memory(table, ours, "GET over TLS")


def test_put(candidates: Candidates, table: Table) -> None:
    """An upload: ours with digests and fsync, Apache's with neither."""
    source = measure.make_file(candidates.folder / "source.img", PUT_SIZE)
    number = 0

    def upload(name: str) -> None:
        nonlocal number
        number += 1
        with candidates.client(name) as client:
            client.put(source, f"{number}.img")

    def clean() -> None:
        for path in (candidates.folder / "www").iterdir():
            path.unlink()
        for path in (candidates.folder / "host/file").iterdir():
            if path.is_file() and not path.name.startswith("."):
                path.unlink()
        measure.run("sync")

    works = {name: partial(upload, name) for name in candidates.urls}
    times = measure.in_turns(works, before=clean)
    _compare(table, "PUT of 1 GiB", times, PUT_SIZE, {"Apache": "≥ 1"})
    _note_memory(table, candidates.ours, "PUT")


def test_list(candidates: Candidates, table: Table) -> None:
    """A folder of 10,000 members: when much has changed, one image has, and nothing has."""
    catalog = candidates.ours.catalog.catalog()
    fill(catalog, MEMBERS)
    vfs = Vfs(catalog)
    changed = vfs.resolve(f"/file/{MEMBERS}/{name_of(0)}")
    assert isinstance(changed, Entry)
    plain = candidates.folder / "www" / str(MEMBERS)
    plain.mkdir()
    for number in range(MEMBERS):
        (plain / name_of(number)).touch()

    def change(times: int) -> None:
        with catalog.write() as repository:
            for _ in range(times):
                repository.set_image(changed.image.number, mtime=time.time_ns())
        (plain / name_of(0)).touch()

    before = candidates.ours.peak_memory()
    for title, wanted in _LISTINGS.items():
        works = {name: partial(_list, candidates, name, wanted) for name in candidates.urls}
        for when, changes in (("the first time", 1000), ("after a change", 1), ("again", 0)):
            times = measure.in_turns(works, before=partial(change, changes))
            for name, target in (("Apache", "≤ 1"), ("rclone", "")):
                each = [f"{times[it]:.3f} s" for it in (OURS, name)]
                what = f"PROPFIND of {MEMBERS:,} members, {title}, {when}, to {name} (time)"
                table.add(what, each, times[OURS] / times[name], target)
    catalog.close()
    grown = candidates.ours.peak_memory() - before
    table.note(f"memory added by listing {MEMBERS:,} members", f"{grown / MIB:.1f} MiB")


def _get(connect: Callable[[], Client]) -> None:
    with connect() as client:
        client.get()


def _list(candidates: Candidates, name: str, wanted: str) -> None:
    with candidates.client(name, f"{MEMBERS}/") as client:
        client.list(wanted)


def _get_ranges(connect: Callable[[], Client]) -> None:
    """64 clients at once, each with some ranges of 1 MiB from anywhere."""
    places = random.Random(RANGES)
    firsts = [[places.randrange(SIZE // MIB) * MIB for _ in range(EACH)] for _ in range(RANGES)]

    def fetch(wanted: list[int]) -> None:
        for first in wanted:
            with connect() as client:  # Apache closes kept connections when it has much to do
                client.get(first, MIB)

    with ThreadPoolExecutor(RANGES) as pool:
        list(pool.map(fetch, firsts))


def _add_image(folder: Path, ours: Service) -> None:
    """The same data for all: a file below `www`, and an image."""
    source = measure.make_file(folder / "www/image.img", SIZE)
    catalog = ours.catalog.catalog()
    vfs = Vfs(catalog)
    entry = vfs.create(vfs.place("/file/image.img"), Principal("anonymous"))
    upload = vfs.uploads.start(entry.image.number)
    with source.open("rb") as file:
        while block := file.read(MIB):
            upload.write(file.tell() - len(block), block)
    upload.commit()
    catalog.close()
    measure.read_all(source)


def _compare(
    table: Table, what: str, times: dict[str, float], size: int, targets: dict[str, str]
) -> None:
    for name in times:
        if name != OURS:
            speed = [f"{size / MIB / times[it]:.0f} MiB/s" for it in (OURS, name)]
            table.add(f"{what}, to {name}", speed, times[name] / times[OURS], targets.get(name, ""))


def _note_memory(table: Table, ours: Service, what: str) -> None:
    peak = ours.peak_memory()
    table.note(f"peak memory of the server, {what}", f"{peak / MIB:.0f} MiB", "< 200")
    assert peak < MEMORY_LIMIT
