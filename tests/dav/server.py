"""WebDAV servers over real catalogs: in this process, and `imagefs dav` as its users run it.

Users: the tests of the methods, the documentation's examples and the benchmarks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from catalog.access import Principal, Role
from catalog.bootstrap import make_catalog
from catalog.catalog import Catalog
from catalog.image import Image
from catalog.settings import Settings, load
from catalog.users import add_user
from catalog.vfs import Vfs
from dav.app import App
from dav.auth import Authentication
from dav.server import Server, TlsFiles
from dav.settings import DavSettings
from tests.catalog.actions import image_at, put, settings_at, some_bytes
from tests.dav.wire import Answer, Process, Wire

ANONYMOUS = Principal("anonymous")
"""Whom the server takes those for who give no name."""

SIZE = 100_000
"""Bytes of an image where the number does not matter."""

_CONFIG = """\
[catalog]
url = "sqlite:///{folder}/catalog.db"
staging = "{folder}/staging"
default_store = "file"
[stores.file]
type = "filesystem"
path = "{folder}/file"
[stores.other]
type = "filesystem"
path = "{folder}/other"
[dav]
listen = "127.0.0.1:0"
anonymous = "write"
"""
_START_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server in this process, with the tree that it serves; anybody may write."""

    vfs: Vfs
    port: int

    def ask(self, request: str, *headers: str, body: bytes = b"") -> Answer:
        """Send a request, `METHOD TARGET`, on a connection of its own."""
        with Wire(self.port) as wire:
            return wire.ask(request, *headers, body=body)

    def image(self, path: str) -> Image:
        """The image at a path of the tree."""
        return image_at(self.vfs, path)

    def add(self, path: str, data: bytes = some_bytes(SIZE)) -> Image:
        """An active image, not by way of HTTP."""
        return put(self.vfs, path, data, ANONYMOUS)


@contextmanager
def serving(folder: Path, settings: Settings | None = None) -> Iterator[Served]:
    """A server over a new catalog with the stores `file`, `other` and `memory`."""
    catalog = make_catalog(settings or settings_at(folder))
    vfs = Vfs(catalog)
    dav = DavSettings.model_validate({"anonymous": "write"})
    server = Server(Authentication(App(vfs), catalog, dav), ("127.0.0.1", 0))
    server.start()
    try:
        yield Served(vfs, server.port)
    finally:
        server.stop()
        vfs.close()


def login(vfs: Vfs, name: str, role: Role = Role.MEMBER) -> str:
    """Add a user and return the header that it logs in with."""
    add_user(vfs.catalog, name, "secret", role=role)
    return f"Authorization: Basic {b64encode(f'{name}:secret'.encode()).decode()}"


def xml(answer: Answer) -> Element:
    """The body of an answer as XML."""
    return fromstring(answer.body, forbid_dtd=True)


@dataclass(frozen=True, slots=True)
class Program(Process):
    """`imagefs dav` in a process of its own."""

    folder: Path

    def catalog(self) -> Catalog:
        """Its catalog, opened here too; the caller closes it."""
        return make_catalog(load(self.folder / "imagefs.toml"))


@contextmanager
def program(folder: Path, tls: TlsFiles | None = None) -> Iterator[Program]:
    """Run `imagefs dav` over a catalog below `folder`, which is made if it is not there."""
    folder.mkdir(exist_ok=True)
    config = folder / "imagefs.toml"
    text = _CONFIG.format(folder=folder)
    if tls:
        text += f'tls_certificate = "{tls.certificate}"\ntls_key = "{tls.key}"\n'
    config.write_text(text)
    make_catalog(load(config)).close()
    log = folder / "dav.log"
    command = Path(sys.executable).with_name("imagefs")
    environ = {**os.environ, "IMAGEFS_CONFIG": str(config), "IMAGEFS_STATE": str(folder)}
    with log.open("w") as file, subprocess.Popen([command, "dav"], stderr=file, env=environ) as it:
        try:
            yield Program(it.pid, _port(it, log), folder)
        finally:
            it.terminate()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + _START_TIMEOUT
    while not (found := re.search(r"serving at \S+:(\d+)/", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, "imagefs dav does not start"
        time.sleep(0.02)
    return int(found[1])
