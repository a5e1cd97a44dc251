"""Reading images back and comparing them with their digests."""

from __future__ import annotations

import hashlib

import pytest

from catalog.errors import DataDamaged, Forbidden, StoreUnavailable
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE, Image
from catalog.tree.vfs import Vfs
from catalog.upkeep.verify import BadChunk, Verdict, Verified, read_verified, verify
from tests.kit.catalog import ALICE, BOB, image_at, link, put, set_fields, some_bytes
from tests.kit.damage import overwrite, stored

DATA = some_bytes(2 * CHUNK_SIZE + 1000)


def verified(vfs: Vfs, image: Image) -> dict[str, Verified]:
    """The result for each store."""
    return {found.store: found for found in verify(vfs.catalog, image, ADMIN)}


def test_intact_copies_are_told_and_all_bytes_are_read(vfs: Vfs) -> None:
    """Every copy is intact, and the progress adds up to the bytes of both."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    read: list[int] = []
    found = list(verify(vfs.catalog, image, ADMIN, progress=read.append))
    assert [(one.store, one.verdict) for one in found] == [
        ("file", Verdict.INTACT),
        ("other", Verdict.INTACT),
    ]
    assert sum(read) == 2 * len(DATA)


def test_each_bad_chunk_is_named_with_its_offset(vfs: Vfs) -> None:
    """A damaged first and last chunk are both named; the other copy stays intact."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    path = stored(vfs.catalog, image, "file")
    overwrite(path, 5, bytes([DATA[5] ^ 1]))
    overwrite(path, len(DATA) - 1, bytes([DATA[-1] ^ 1]))
    found = verified(vfs, image)
    assert found["file"].verdict is Verdict.DAMAGED
    assert found["file"].bad_chunks == (BadChunk(0, CHUNK_SIZE), BadChunk(2 * CHUNK_SIZE, 1000))
    assert found["other"].verdict is Verdict.INTACT


def test_data_cut_at_a_chunk_is_damaged(vfs: Vfs) -> None:
    """What is missing is noticed though every chunk that is there is right."""
    image = put(vfs, "/file/a", DATA)
    path = stored(vfs.catalog, image, "file")
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.truncate(CHUNK_SIZE)
    found = verified(vfs, image)["file"]
    assert (found.verdict, found.bad_chunks) == (Verdict.DAMAGED, ())
    assert f"{CHUNK_SIZE} bytes" in found.detail
    with pytest.raises(StoreUnavailable):
        list(read_verified(vfs.catalog, image, ADMIN))


def test_missing_data_is_unreadable(vfs: Vfs) -> None:
    """A location without its data is told, and does not end the verification."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    stored(vfs.catalog, image, "file").unlink()
    found = verified(vfs, image)
    assert found["file"].verdict is Verdict.UNREADABLE
    assert found["other"].verdict is Verdict.INTACT


def test_wrong_whole_digest_is_damaged(vfs: Vfs) -> None:
    """The digest of the whole image is compared too, not only the chunks'."""
    image = put(vfs, "/file/a", DATA)
    with vfs.catalog.write() as repository:
        repository.set_image(image.number, os_hash_value=hashlib.sha256(b"").hexdigest())
    found = verified(vfs, image_at(vfs, "/file/a"))["file"]
    assert (found.verdict, found.bad_chunks) == (Verdict.DAMAGED, ())
    assert "sha256" in found.detail


def test_reading_verified_stops_before_the_damage(vfs: Vfs) -> None:
    """Only good chunks are handed out, and the error names the offset of the bad one."""
    image = put(vfs, "/file/a", DATA)
    overwrite(stored(vfs.catalog, image, "file"), CHUNK_SIZE, b"x" * 100)
    chunks = read_verified(vfs.catalog, image, ADMIN)
    assert next(chunks) == DATA[:CHUNK_SIZE]
    with pytest.raises(DataDamaged) as raised:
        next(chunks)
    assert raised.value.offset == CHUNK_SIZE


def test_unreadable_data_cannot_be_exported(vfs: Vfs) -> None:
    """No copy is a StoreUnavailable."""
    image = put(vfs, "/file/a", DATA)
    stored(vfs.catalog, image, "file").unlink()
    with pytest.raises(StoreUnavailable):
        list(read_verified(vfs.catalog, image, ADMIN))


def test_private_images_are_verified_by_those_who_may_read(vfs: Vfs) -> None:
    """Verification tells about data, so it needs the right to read it."""
    image = put(vfs, "/file/a", DATA)
    set_fields(vfs, "/file/a", visibility="private")
    image = image_at(vfs, "/file/a")
    assert [found.verdict for found in verify(vfs.catalog, image, ALICE)] == [Verdict.INTACT]
    with pytest.raises(Forbidden):
        list(verify(vfs.catalog, image, BOB))
