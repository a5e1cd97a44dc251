"""Damaged copies: marked, and written anew from whatever is good."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import Conflict, Forbidden, NotSupported, StoreFull
from catalog.model.access import ADMIN
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import ChunkDigests, Image
from catalog.process import this_process
from catalog.stores.memory import MemoryStore
from catalog.tree.vfs import Vfs
from catalog.upkeep.repair import repair, verify_and_repair
from catalog.upkeep.verify import Verdict, verify
from tests.kit.catalog import ALICE, BOB, link, put, read, set_fields, some_bytes, staged_files
from tests.kit.damage import overwrite

CHUNK = 4096
COUNT = 6
DATA = some_bytes((COUNT - 1) * CHUNK + 100)


def put_in_chunks(vfs: Vfs, path: str) -> Image:
    """An image of COUNT small chunks."""
    image = put(vfs, path, DATA)
    digests = tuple(
        hashlib.sha256(DATA[at : at + CHUNK]).digest() for at in range(0, len(DATA), CHUNK)
    )
    with vfs.catalog.write() as repository:
        repository.set_chunk_digests(image.number, ChunkDigests("sha256", CHUNK, digests))
    return image


def marked(vfs: Vfs, image: Image) -> set[str]:
    """The stores whose copy is marked as damaged."""
    with vfs.catalog.read() as repository:
        numbers = repository.damaged(image.number)
        return {x.store for x in repository.locations_of(image.number) if x.number in numbers}


def repaired(vfs: Vfs, image: Image) -> dict[str, Verdict]:
    """What became of the copy in each store."""
    found = verify_and_repair(vfs.catalog, image, ADMIN)
    return {one.store: one.verdict for one in found}


def bad(data: bytes, chunks: set[int]) -> bytes:
    """The data with one byte of each of these chunks changed."""
    changed = bytearray(data)
    for index in chunks:
        changed[index * CHUNK] ^= 1
    return bytes(changed)


some_chunks = st.sets(st.integers(0, COUNT - 1))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(in_file=some_chunks, in_other=some_chunks, in_memory=some_chunks)
def test_what_is_good_anywhere_makes_all_copies_good(
    vfs: Vfs, tmp_path: Path, in_file: set[int], in_other: set[int], in_memory: set[int]
) -> None:
    """Any damage of any copies is repaired, unless some chunk is bad in all of them."""
    name = os.urandom(8).hex()
    image = put_in_chunks(vfs, f"/file/{name}")
    link(vfs, f"/file/{name}", f"/other/{name}")
    link(vfs, f"/file/{name}", f"/memory/{name}")
    overwrite(tmp_path / "file" / image.id, 0, bad(DATA, in_file))
    overwrite(tmp_path / "other" / image.id, 0, bad(DATA, in_other))
    memory = vfs.catalog.store("memory")
    assert isinstance(memory, MemoryStore)
    memory.put(image.id, bad(DATA, in_memory))
    damage = {"file": in_file, "other": in_other, "memory": in_memory}
    lost = in_file & in_other & in_memory
    expected = {
        store: Verdict.INTACT if not chunks else Verdict.DAMAGED if lost else Verdict.REPAIRED
        for store, chunks in damage.items()
    }
    assert repaired(vfs, image) == expected
    assert marked(vfs, image) == {store for store in damage if lost}
    if not lost:
        assert {one.verdict for one in verify(vfs.catalog, image, ADMIN)} == {Verdict.INTACT}
    assert staged_files(tmp_path) == []
    with vfs.catalog.read() as repository:
        assert repository.uploads() == []


def test_verify_alone_marks_and_unmarks(vfs: Vfs, tmp_path: Path) -> None:
    """What is found is noted, and what is right again loses its mark."""
    image = put_in_chunks(vfs, "/file/a")
    link(vfs, "/file/a", "/other/a")
    path = tmp_path / "file" / image.id
    overwrite(path, 0, bad(DATA, {2}))
    list(verify(vfs.catalog, image, ADMIN))
    assert marked(vfs, image) == {"file"}
    overwrite(path, 0, DATA)
    list(verify(vfs.catalog, image, ADMIN))
    assert marked(vfs, image) == set()


def test_missing_data_is_written_again(vfs: Vfs, tmp_path: Path) -> None:
    """A copy without its file is as bad as one with wrong bytes."""
    image = put_in_chunks(vfs, "/file/a")
    link(vfs, "/file/a", "/other/a")
    (tmp_path / "other" / image.id).unlink()
    assert repaired(vfs, image) == {"file": Verdict.INTACT, "other": Verdict.REPAIRED}
    assert (tmp_path / "other" / image.id).read_bytes() == DATA


def test_a_store_that_is_away_is_not_repaired(vfs: Vfs, tmp_path: Path) -> None:
    """Nobody knows whether its copy is bad: it is neither marked nor written."""
    image = put_in_chunks(vfs, "/file/a")
    link(vfs, "/file/a", "/other/a")
    (tmp_path / "other").rename(tmp_path / "away")
    assert repaired(vfs, image) == {"file": Verdict.INTACT, "other": Verdict.UNREADABLE}
    assert marked(vfs, image) == set()


def test_a_repair_is_never_in_place(vfs: Vfs, tmp_path: Path) -> None:
    """Who has the bad file open goes on reading that one; the key has another."""
    image = put_in_chunks(vfs, "/file/a")
    link(vfs, "/file/a", "/other/a")
    path = tmp_path / "file" / image.id
    overwrite(path, 0, bad(DATA, {0}))
    with path.open("rb") as before:
        assert repaired(vfs, image)["file"] is Verdict.REPAIRED
        assert before.read() == bad(DATA, {0})
    assert path.read_bytes() == DATA


def test_a_wrong_digest_of_the_whole_is_not_repaired(vfs: Vfs) -> None:
    """Writing the same bytes again changes nothing, and is not told as a repair."""
    image = put_in_chunks(vfs, "/file/a")
    with vfs.catalog.write() as repository:
        repository.set_image(image.number, os_hash_value=hashlib.sha256(b"").hexdigest())
    (found,) = verify_and_repair(vfs.catalog, vfs.catalog.image(image.number), ADMIN)
    assert found.verdict is Verdict.DAMAGED
    assert "to no avail" in found.detail


def test_a_full_store_is_not_repaired_and_told(vfs: Vfs, tmp_path: Path) -> None:
    """The bad copy stays, marked; what it has good is still of use."""
    image = put_in_chunks(vfs, "/file/a")
    link(vfs, "/file/a", "/memory/a")
    memory = vfs.catalog.store("memory")
    assert isinstance(memory, MemoryStore)
    memory.delete(memory.url_of(image.id))
    memory.put("filler", bytes(1 << 24))
    found = {one.store: one for one in verify_and_repair(vfs.catalog, image, ADMIN)}
    assert found["memory"].verdict is Verdict.UNREADABLE
    assert "not repaired: " + str(StoreFull("memory")) in found["memory"].detail
    assert marked(vfs, image) == {"memory"}
    assert read(vfs, "/file/a") == DATA


def test_one_repair_at_a_time(vfs: Vfs) -> None:
    """While the image is copied or repaired by anybody, another repair is Conflict."""
    image = put_in_chunks(vfs, "/file/a")
    with vfs.catalog.write() as repository:
        repository.add_upload(UploadRecord(image.number, this_process(), "", now(), now()))
        (location,) = repository.locations_of(image.number)
    with pytest.raises(Conflict):
        repair(vfs.catalog, image, location)
    assert marked(vfs, image) == set()


def test_without_digests_there_is_nothing_to_repair_by(vfs: Vfs) -> None:
    """NotSupported, and nothing is noted."""
    image = put(vfs, "/file/a", DATA)
    with vfs.catalog.write() as repository:
        repository.set_chunk_digests(image.number, ChunkDigests("sha256", CHUNK, ()))
        (location,) = repository.locations_of(image.number)
        repository.connection.exec_driver_sql("DELETE FROM chunk_digests")
    with pytest.raises(NotSupported):
        repair(vfs.catalog, image, location)
    with vfs.catalog.read() as repository:
        assert repository.uploads() == []


def test_only_its_owner_repairs_an_image(vfs: Vfs) -> None:
    """Reading is not enough."""
    image = put_in_chunks(vfs, "/file/a")
    with pytest.raises(Forbidden):
        list(verify_and_repair(vfs.catalog, image, BOB))
    assert [one.verdict for one in verify_and_repair(vfs.catalog, image, ALICE)] == [Verdict.INTACT]


def test_a_deactivated_image_is_repaired(vfs: Vfs, tmp_path: Path) -> None:
    """Its data is as worth keeping as any."""
    image = put_in_chunks(vfs, "/file/a")
    link(vfs, "/file/a", "/other/a")
    set_fields(vfs, "/file/a", status="deactivated")
    overwrite(tmp_path / "other" / image.id, 0, bad(DATA, {1}))
    image = vfs.catalog.image(image.number)
    assert repaired(vfs, image)["other"] is Verdict.REPAIRED
