"""External locations (`ln -s URL`): registered, read in place, digests verified later."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from catalog.copies import recording
from catalog.errors import DataDamaged, InvalidImage, InvalidValue, NotSupported
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE
from catalog.model.status import Status
from catalog.model.tree import Entry
from catalog.rules import fields
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from catalog.upkeep.verify import Verdict, verify
from tests.kit.catalog import new_catalog
from tests.kit.configuration import configure
from tests.kit.images.samples import SIZE, container
from tests.servers.scripted import WebServer, asked_range, nginx, respond, scripted

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
    vfs = Vfs(new_catalog(load(configure(tmp_path))))
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
    fields.set_attributes(vfs.catalog, wrong.image.number, {"image.os_hash_value": SHA256}, ADMIN)
    (found,) = verify(vfs.catalog, vfs.catalog.image(wrong.image.number), ADMIN)
    assert found.verdict is Verdict.RECORDED


PIECE = 256 << 10
PIECES = [range(at, min(at + PIECE, len(DATA))) for at in range(0, len(DATA), PIECE)]


def read_pieces(vfs: Vfs, entry: Entry, pieces: Iterable[range], threads: int = 1) -> None:
    """Read ranges of an image by one reader."""
    reader = vfs.open(entry.image.number, ADMIN)

    def read(piece: range) -> None:
        assert reader.read_at(piece.start, len(piece)) == DATA[piece.start : piece.stop]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, pieces))
    reader.close()


def swapped(pieces: list[range]) -> list[range]:
    """Each second one before the first, some of them twice, and one larger than both."""
    found = [piece for pair in zip(pieces[1::2], pieces[::2], strict=False) for piece in pair]
    return [*found[:6], *found[2:4], range(3 * PIECE), *found[6:], *pieces[len(found) :]]


@pytest.mark.parametrize(
    ("pieces", "threads"),
    [
        ([range(len(DATA))], 1),
        (PIECES, 1),
        (swapped(PIECES), 1),
        ([*PIECES[:3], *PIECES], 1),
        (PIECES, 4),
    ],
    ids=["at once", "in order", "almost in order", "begun anew", "by threads"],
)
def test_the_first_full_read_records_digests(
    vfs: Vfs, web: WebServer, pieces: list[range], threads: int
) -> None:
    """Until then the image is told to be unverified; from then on its reads are compared."""
    entry = register(vfs, f"{web.url}/image")
    assert entry.image.verified is False
    read_pieces(vfs, entry, pieces, threads)
    image = vfs.catalog.image(entry.image.number)
    assert (image.verified, image.os_hash_value) == (True, SHA256)
    (found,) = verify(vfs.catalog, image, ADMIN)
    assert (found.verdict, found.bad_chunks) == (Verdict.INTACT, ())


@pytest.mark.parametrize(
    "pieces", [PIECES[1:], PIECES[:-1], PIECES[:5] + PIECES[6:], PIECES[8:] + PIECES[:8]]
)
def test_a_read_of_some_of_it_records_nothing(
    vfs: Vfs, web: WebServer, pieces: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one whose bytes come in an order that would take too much memory."""
    monkeypatch.setattr(recording, "_AHEAD", 4 * PIECE)
    entry = register(vfs, f"{web.url}/image")
    read_pieces(vfs, entry, pieces)
    image = vfs.catalog.image(entry.image.number)
    assert (image.verified, image.os_hash_value) == (False, None)


@pytest.mark.expect_log("was announced")
def test_a_full_read_of_what_was_not_announced_records_nothing(vfs: Vfs, web: WebServer) -> None:
    """It is told in the log; a digest that is announced later is compared as well."""
    entry = register(vfs, f"{web.url}/image#sha256={'0' * 64}")
    read_pieces(vfs, entry, PIECES)
    assert vfs.catalog.image(entry.image.number).verified is False
    reader = vfs.open(entry.image.number, ADMIN)
    fields.set_attributes(vfs.catalog, entry.image.number, {"image.os_hash_value": SHA256}, ADMIN)
    reader.read_at(0, len(DATA))
    reader.close()
    assert vfs.catalog.image(entry.image.number).os_hash_value == SHA256


def test_a_link_of_an_image_without_digests_records_them(vfs: Vfs, web: WebServer) -> None:
    """The copy is compared with them from the beginning."""
    entry = register(vfs, f"{web.url}/image")
    vfs.link(entry.image.number, vfs.place("/file/image"), ADMIN)
    image = vfs.catalog.image(entry.image.number)
    assert image.os_hash_value == SHA256
    assert {one.verdict for one in verify(vfs.catalog, image, ADMIN)} == {Verdict.INTACT}


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


OVERLAY = b"QFI\xfb" + (3).to_bytes(4, "big") + (512).to_bytes(8, "big")


def test_what_has_changed_since_is_judged_again(vfs: Vfs, web: WebServer) -> None:
    """A raw disk that has become an overlay is read by nobody, nor are digests recorded of it."""
    path = web.root / "changing"
    path.write_bytes(DATA)
    entry = vfs.register(vfs.place("/web/changing"), f"{web.url}/changing", ADMIN)
    vfs.open(entry.image.number, ADMIN).close()
    path.write_bytes(OVERLAY.ljust(len(DATA), b"\0"))
    with pytest.raises(DataDamaged, match="another now"):
        vfs.open(entry.image.number, ADMIN)
    (found,) = verify(vfs.catalog, entry.image, ADMIN)
    assert (found.verdict, "another now" in found.detail) == (Verdict.DAMAGED, True)
    with pytest.raises(DataDamaged):
        vfs.link(entry.image.number, vfs.place("/file/copy"), ADMIN)
    path.write_bytes(DATA)
    vfs.open(entry.image.number, ADMIN).close()


class Turncoat:
    """A server that gives harmless bytes a number of times, and an overlay under the same ETag."""

    def __init__(self) -> None:
        self.harmless_heads = 1 << 30

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        first, last = asked_range(handler)
        data = DATA[first : last + 1]
        if first == 0 and last > 0:  # opening asks for the first byte alone
            self.harmless_heads -= 1
            if self.harmless_heads < 0:
                data = OVERLAY.ljust(len(data), b"\0")
        headers = {"ETag": '"same"', "Content-Range": f"bytes {first}-{last}/{len(DATA)}"}
        respond(handler, 206, headers, data)


def test_what_is_read_is_what_was_judged(vfs: Vfs) -> None:
    """A server that waits for the verdict, and gives an overlay then, is not asked again."""
    turncoat = Turncoat()
    with scripted(turncoat) as server:
        entry = register(vfs, server.url)
        reader = vfs.open(entry.image.number, ADMIN)
        turncoat.harmless_heads = 0
        for offset, size in [(0, 512), (0, 1 << 20), (100, 1 << 16), (1 << 16, 4096)]:
            assert reader.read_at(offset, size) == DATA[offset : offset + size]
        assert reader.read_at(len(DATA) - 5, 512) == DATA[-5:]
        reader.close()
        vfs.close()


def test_digests_are_of_what_was_judged(vfs: Vfs) -> None:
    """So that the overlay is damage from then on."""
    turncoat = Turncoat()
    with scripted(turncoat) as server:
        entry = register(vfs, server.url)
        turncoat.harmless_heads = 1
        (found,) = verify(vfs.catalog, entry.image, ADMIN)
        assert found.verdict is Verdict.RECORDED
        image = vfs.catalog.image(entry.image.number)
        assert image.os_hash_value == SHA256
        (found,) = verify(vfs.catalog, image, ADMIN)
        assert (found.verdict, found.bad_chunks[0].offset) == (Verdict.DAMAGED, 0)
        vfs.close()


def test_a_container_at_a_url_is_judged_as_a_whole(
    vfs: Vfs, web: WebServer, tmp_path: Path
) -> None:
    """Its tables are read by ranges, wherever in the file they are."""
    whole = container(tmp_path, "dynamic.vhd").read_bytes()
    (web.root / "disk.vhd").write_bytes(whole)
    entry = vfs.register(vfs.place("/web/disk.vhd"), f"{web.url}/disk.vhd", ADMIN)
    assert (entry.image.disk_format, entry.image.virtual_size) == ("vhd", SIZE)
    (web.root / "cut.vhd").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InvalidImage, match="cut off"):
        vfs.register(vfs.place("/web/cut.vhd"), f"{web.url}/cut.vhd", ADMIN)
