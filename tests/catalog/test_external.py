"""External locations (`ln -s URL`): registered, read in place, digests verified later."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.access import ADMIN
from catalog.bootstrap import make_catalog
from catalog.errors import InvalidImage, InvalidValue, NotSupported
from catalog.image import CHUNK_SIZE, Entry
from catalog.settings import load
from catalog.status import Status
from catalog.verify import Verdict, verify
from catalog.vfs import Vfs
from tests.catalog.stores.servers import WebServer, nginx
from tests.configuration import configure

DATA = os.urandom(CHUNK_SIZE + 12345)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """One nginx for all tests of this file."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        (server.root / "image").write_bytes(DATA)
        (server.root / "overlay").write_bytes(
            b"QFI\xfb" + (3).to_bytes(4, "big") + (512).to_bytes(8, "big") + bytes(5000)
        )
        yield server


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[Vfs]:
    """A tree with a directory and an http store that may reach loopback."""
    vfs = Vfs(make_catalog(load(configure(tmp_path))))
    yield vfs
    vfs.close()


def register(vfs: Vfs, target: str) -> Entry:
    """An entry for what lies at a URL."""
    return vfs.register(vfs.place("/web/image"), target, ADMIN)


def test_registered_url_is_an_active_image(vfs: Vfs, web: WebServer) -> None:
    """Size and format come from the server; the data is read in place."""
    entry = register(vfs, f"{web.url}/image")
    assert (entry.image.status, entry.image.size) == (Status.ACTIVE, len(DATA))
    reader = vfs.open(entry.image.number, ADMIN)
    assert reader.read_at(CHUNK_SIZE - 5, 10) == DATA[CHUNK_SIZE - 5 : CHUNK_SIZE + 5]
    reader.close()


def test_verify_records_digests(vfs: Vfs, web: WebServer) -> None:
    """An image that came without digests has them after the first verification."""
    entry = register(vfs, f"{web.url}/image")
    (found,) = verify(vfs.catalog, entry.image, ADMIN)
    assert found.verdict is Verdict.RECORDED
    image = vfs.catalog.image(entry.image.number)
    assert image.os_hash_value == SHA256
    (found,) = verify(vfs.catalog, image, ADMIN)
    assert found.verdict is Verdict.INTACT


def test_announced_digest_is_verified(vfs: Vfs, web: WebServer) -> None:
    """A digest behind '#' is not believed: verify compares it with the data."""
    wrong = register(vfs, f"{web.url}/image#sha256={'0' * 64}")
    (found,) = verify(vfs.catalog, wrong.image, ADMIN)
    assert found.verdict is Verdict.DAMAGED
    assert vfs.catalog.image(wrong.image.number).os_hash_value is None
    vfs.catalog.set_attributes(wrong.image.number, {"image.os_hash_value": SHA256}, ADMIN)
    (found,) = verify(vfs.catalog, vfs.catalog.image(wrong.image.number), ADMIN)
    assert found.verdict is Verdict.RECORDED


@pytest.mark.parametrize("fragment", ["sha256=12", "md5=" + "0" * 32, "sha512=" + "0" * 64, "x"])
def test_malformed_digest_is_refused(vfs: Vfs, web: WebServer, fragment: str) -> None:
    """What stands behind '#' is a digest or a mistake."""
    with pytest.raises(InvalidValue):
        register(vfs, f"{web.url}/image#{fragment}")


def test_format_gate_holds_for_urls(vfs: Vfs, web: WebServer) -> None:
    """An overlay is refused wherever it lies."""
    with pytest.raises(InvalidImage, match="backing file"):
        register(vfs, f"{web.url}/overlay")


def test_only_external_stores_take_urls(vfs: Vfs, web: WebServer) -> None:
    """A directory keeps data, not links."""
    with pytest.raises(NotSupported):
        vfs.register(vfs.place("/file/image"), f"{web.url}/image", ADMIN)


def test_deletion_leaves_the_server_alone(vfs: Vfs, web: WebServer) -> None:
    """Purging an external image forgets it and asks nothing of the server."""
    register(vfs, f"{web.url}/image")
    vfs.remove(vfs.place("/web/image"), ADMIN)
    vfs.remove(vfs.place("/web/.trash/image"), ADMIN)
    assert (web.root / "image").exists()
    assert list(vfs.members(vfs.place("/web/image").folder))[1:] == []
