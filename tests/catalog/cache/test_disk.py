"""One image on the cache's disk: a claim is never without its data."""

from __future__ import annotations

import os
import random
import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest

from catalog.cache import slots
from catalog.cache.disk import DATA as DATA_FILE
from catalog.cache.disk import MAP, DiskImage
from catalog.cache.folder import CacheFolder
from catalog.stores.base import Data
from tests.catalog.cache.remote import CHUNK, chunks_of, some_data

DATA = some_data(10 * CHUNK + 100)
CHUNKS = chunks_of(DATA)


def part(index: int) -> bytes:
    """The bytes of one chunk."""
    return DATA[index * CHUNK : (index + 1) * CHUNK]


def land(disk: DiskImage, *indices: int) -> None:
    """Write chunks, as one who has fetched them."""
    for index in indices:
        assert disk.lock(index)
        disk.land(index, part(index))


def read(disk: DiskImage, index: int) -> Data | None:
    """All of one chunk, if it is there."""
    return disk.read(index, *CHUNKS.span(index, index + 1))


def held(folder: CacheFolder) -> list[int]:
    """The chunks that the next process to open the image will find, each compared."""
    with closing(folder.open(CHUNKS)) as disk:
        found = [index for index in range(CHUNKS.count) if disk.has(index)]
        assert all(read(disk, index) == part(index) for index in found)
        return found


def test_claims_outlive_the_process(folder: CacheFolder) -> None:
    """What was flushed is found by the next to open the image; the last chunk is shorter."""
    with closing(folder.open(CHUNKS)) as disk:
        land(disk, 0, 10)
        assert disk.flush()
        assert not disk.flush()
    assert held(folder) == [0, 10]


def test_landed_is_read_here_and_claimed_later(folder: CacheFolder) -> None:
    """A chunk that is not durable yet is read by this process and no other; close flushes."""
    with closing(folder.open(CHUNKS)) as disk:
        land(disk, 3)
        assert read(disk, 3) == part(3)
        assert held(folder) == []
    assert held(folder) == [3]


def test_data_is_durable_before_its_claim(
    folder: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the data's write and its claim there is a flush of the data, and one behind both."""
    calls: list[str] = []

    def name(fd: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{fd}")).name

    real_write, real_sync = os.pwrite, os.fdatasync

    def write(fd: int, data: bytes, offset: int) -> int:
        calls.append(f"write {name(fd)}")
        return real_write(fd, data, offset)

    def sync(fd: int) -> None:
        calls.append(f"sync {name(fd)}")
        real_sync(fd)

    with closing(folder.open(CHUNKS)) as disk:
        monkeypatch.setattr(os, "pwrite", write)
        monkeypatch.setattr(os, "fdatasync", sync)
        land(disk, 1, 2)
        disk.flush()
        claimed, calls = calls, []
        disk.drop([1])
        assert calls == ["write map", "sync map"]
    assert claimed == [
        *["write data", "write data", "sync data"],
        *["write map", "write map", "sync map"],
    ]


def test_torn_claim_is_none(folder: CacheFolder) -> None:
    """A slot of which any bit is another claims nothing."""
    with closing(folder.open(CHUNKS)) as disk:
        land(disk, 4)
    path = folder.path / "images/image/map"
    offset, size = slots.place_of(4)
    whole = path.read_bytes()
    for bit in range(size * 8):
        torn = bytearray(whole)
        torn[offset + bit // 8] ^= 1 << bit % 8
        path.write_bytes(torn)
        assert held(folder) == []
    path.write_bytes(whole)
    assert held(folder) == [4]


@pytest.mark.parametrize("keep", [0, 1, 500, 4096, 4200])
def test_damaged_map_is_made_anew(folder: CacheFolder, keep: int) -> None:
    """A map that was cut off is no map, and so is one with another header."""
    with closing(folder.open(CHUNKS)) as disk:
        land(disk, 4)
    os.truncate(folder.path / "images/image/map", keep)
    assert held(folder) == []
    (folder.path / "images/image/map").write_bytes(bytes(5000))
    assert held(folder) == []


def test_lost_data_is_not_read(folder: CacheFolder) -> None:
    """A claim on data that was cut off is taken back when it is read."""
    with closing(folder.open(CHUNKS)) as disk:
        land(disk, 4)
    os.truncate(folder.path / "images/image/data", 4 * CHUNK + 5)
    with closing(folder.open(CHUNKS)) as disk:
        assert read(disk, 4) is None
        assert not disk.has(4)
    (folder.path / "images/image/data").unlink()
    assert held(folder) == []


def test_other_data_of_the_same_image(folder: CacheFolder) -> None:
    """Who reads the old data goes on with it; the new begins with nothing."""
    with closing(folder.open(CHUNKS)) as old:
        land(old, 0)
        old.flush()
        changed = chunks_of(DATA[::-1])
        with closing(folder.open(changed)) as new:
            assert not new.has(0)
            assert read(old, 0) == part(0)
    assert held(folder) == []


def test_one_fetches(folder: CacheFolder) -> None:
    """A chunk's lock is for one, in this process and among all, until it is claimed."""
    with closing(folder.open(CHUNKS)) as one, closing(folder.open(CHUNKS)) as other:
        assert one.lock(5)
        assert not one.lock(5)
        assert not other.lock(5)
        assert other.lock(6)
        one.land(5, part(5))
        assert not other.lock(5)
        one.flush()
        assert other.has(5)
        assert other.lock(5)
        other.unlock(5)


def test_dropped_chunk_is_gone_for_all(folder: CacheFolder) -> None:
    """What one drops another does not read as zeros; its room is free."""
    with closing(folder.open(CHUNKS)) as one, closing(folder.open(CHUNKS)) as other:
        land(one, *range(11))
        one.flush()
        assert read(other, 5) == part(5)
        before = folder.usage()
        assert one.drop([5, 6]) == 2 * CHUNK
        assert read(other, 5) is None
        # The file system may need a block to note that there is a hole.
        assert CHUNK < before - folder.usage() <= 2 * CHUNK
    assert held(folder) == [0, 1, 2, 3, 4, 7, 8, 9, 10]


def test_chunks_being_fetched_are_not_dropped(folder: CacheFolder) -> None:
    """Neither one that has landed here nor one that another process fetches."""
    with closing(folder.open(CHUNKS)) as one, closing(folder.open(CHUNKS)) as other:
        land(one, 1)
        assert one.drop([1]) == 0
        assert other.drop([1]) == 0
        assert read(one, 1) == part(1)


def test_who_has_the_descriptor_keeps_the_data(folder: CacheFolder) -> None:
    """Of an image that is complete the file itself may be read, and nothing of it goes."""
    with closing(folder.open(CHUNKS)) as one, closing(folder.open(CHUNKS)) as other:
        assert one.direct() is None
        land(one, *range(11))
        one.flush()
        fd = one.direct()
        assert fd is not None
        assert one.drop([0]) == other.drop([0]) == 0
        assert os.pread(fd, len(DATA) + 1, 0) == DATA
        one.close()
        assert other.drop([0]) == CHUNK


def test_reads_while_others_drop_and_fetch(folder: CacheFolder) -> None:
    """A read beside drops and fetches of the same chunk has its very bytes, or none."""
    stop = threading.Event()
    answers = {None: 0, part(0): 0}

    def churn() -> None:
        with closing(folder.open(CHUNKS)) as disk:
            while not stop.is_set():
                if disk.lock(0):
                    disk.land(0, part(0))
                    disk.flush()
                disk.drop([0])

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    with closing(folder.open(CHUNKS)) as disk:
        for _ in range(3000):
            found = read(disk, 0)
            answers[found if found is None else bytes(found)] += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {None, part(0)}


def test_bit_rot_is_noticed_by_recheck(folder: CacheFolder) -> None:
    """A chunk that the disk has changed is dropped when a process first reads it."""
    with closing(folder.open(CHUNKS)) as disk:
        land(disk, *range(11))
    file = folder.path / "images/image/data"
    with file.open("r+b") as data:
        data.seek(2 * CHUNK + 77)
        data.write(bytes([DATA[2 * CHUNK + 77] ^ 1]))
    with closing(CacheFolder(folder.path, 1 << 30, recheck=True).open(CHUNKS)) as disk:
        assert disk.direct() is None
        assert [index for index in range(11) if read(disk, index) != part(index)] == [2]
        assert read(disk, 2) is None
        assert not disk.has(2)


def test_copies_of_any_moment_are_consistent(folder: CacheFolder, tmp_path: Path) -> None:
    """The folder, copied while it is being filled and emptied, claims only what it has."""
    stop = threading.Event()

    def churn() -> None:
        chance = random.Random(3)
        with closing(folder.open(CHUNKS)) as disk:
            while not stop.is_set():
                index = chance.randrange(11)
                if disk.has(index):
                    continue
                land(disk, index)
                if chance.random() < 0.5:
                    disk.flush()

    thread = threading.Thread(target=churn)
    thread.start()
    for moment in range(30):
        copy = tmp_path / str(moment)
        copied = copy / "images/image"
        copied.mkdir(parents=True)
        for name in (MAP, DATA_FILE):
            source = folder.path / "images/image" / name
            while not source.exists():
                pass
            # The claims before the data: as a crash would find them at the first moment.
            shutil.copyfile(source, copied / name)
        held(CacheFolder(copy, 1 << 30))
        shutil.rmtree(copy)
    stop.set()
    thread.join()
