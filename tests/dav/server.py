"""A WebDAV server over a real catalog, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from catalog.model.access import Principal, Role
from catalog.model.image import Image
from catalog.rules.users import add_user
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from dav.app import App, render_error
from tests.kit.catalog import image_at, new_catalog, put, settings_at, some_bytes
from tests.kit.wire import Answer, Wire, basic
from web.exchange.forwarded import Forwarding, Proxies
from web.login.basic import Authentication
from web.server.server import Server
from web.settings import DavSettings

ANONYMOUS = Principal("anonymous")
"""Whom the server takes those for who give no name."""

SIZE = 100_000
"""Bytes of an image where the number does not matter."""


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
def serving(
    folder: Path,
    settings: Settings | None = None,
    trusted_proxies: tuple[str, ...] = (),
) -> Iterator[Served]:
    """A server over a new catalog with the stores `file`, `other` and `memory`."""
    catalog = new_catalog(settings or settings_at(folder))
    vfs = Vfs(catalog)
    dav = DavSettings.model_validate({"anonymous": "write", "trusted_proxies": trusted_proxies})
    app = Forwarding(
        Authentication(App(vfs), catalog, dav, render_error), Proxies(dav.trusted_proxies)
    )
    server = Server(app, ("127.0.0.1", 0))
    server.start()
    try:
        yield Served(vfs, server.port)
    finally:
        server.stop()
        vfs.close()


def login(vfs: Vfs, name: str, role: Role = Role.MEMBER) -> str:
    """Add a user and return the header that it logs in with."""
    add_user(vfs.catalog, name, "secret", role=role)
    return basic(name)


def xml(answer: Answer) -> Element:
    """The body of an answer as XML."""
    return fromstring(answer.body, forbid_dtd=True)
