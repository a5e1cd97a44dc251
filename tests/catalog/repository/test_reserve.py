"""Deleting is possible on a full disk: a real small one, with the database and the store on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import CatalogError, CatalogFull, StoreRefused
from catalog.model.access import ADMIN
from catalog.repository.reserve import RESERVE, Reserve
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.tree.vfs import Vfs
from catalog.upkeep.scrub import scrub
from tests.kit.catalog import (
    begin,
    image_at,
    keys_in,
    make_folder,
    names_in,
    put,
    read,
    remove,
    settings_at,
    some_bytes,
)

pytestmark = pytest.mark.sqlite

IMAGES = [f"i{number}" for number in range(4)]
SIZE = 48 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    place, image = tmp_path / "disk", tmp_path / "disk.img"
    place.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place)]
    else:
        image.touch()
        os.truncate(image, SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(place)]
    subprocess.run(command, check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def filled(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for step in (1 << 20, 4096, 1):
            while True:
                try:
                    file.write(bytes(step))
                except OSError:
                    break
    os.sync()


def make_folders(vfs: Vfs) -> None:
    """Write to the catalog until there is no room for it."""
    for number in range(1000):
        make_folder(vfs, f"/file/d{number}")


@pytest.fixture
def vfs(disk: Path) -> Iterator[Vfs]:
    """A tree on that disk with some images, and every scrub empties the trash."""
    found = Vfs(make_catalog(settings_at(disk, scrub_time=0)))
    for number, name in enumerate(IMAGES):
        put(found, f"/file/{name}", some_bytes(2 << 20, number))
    yield found
    found.catalog.close()


def test_what_is_deleted_on_a_full_disk_makes_room(vfs: Vfs, disk: Path) -> None:
    """rm and scrub work where nothing else can be written, and then all can again."""
    filled(disk)
    with pytest.raises(CatalogFull):
        make_folders(vfs)
    for name in IMAGES[:3]:
        remove(vfs, f"/file/{name}")
        assert image_at(vfs, f"/file/.trash/{name}").status == "pending_delete"
    assert [each.problem for each in scrub(vfs.catalog)] == [None] * 3
    assert len(keys_in(vfs)) == 1
    put(vfs, "/file/new", b"there is room again")
    assert read(vfs, "/file/new") == b"there is room again"


def test_a_program_that_starts_on_a_full_disk_deletes(vfs: Vfs, disk: Path) -> None:
    """SQLite needs room even to open a database that nobody has open."""
    vfs.catalog.close()
    filled(disk)
    again = Vfs(open_catalog(settings_at(disk, scrub_time=0)))
    remove(again, f"/file/{IMAGES[0]}")
    remove(again, f"/file/.trash/{IMAGES[0]}", ADMIN)
    assert IMAGES[0] not in names_in(again, "/file")
    again.catalog.close()


def test_an_upload_that_meets_a_full_disk_says_so(vfs: Vfs, disk: Path) -> None:
    """Its reason is kept although nothing else can be written."""
    upload = begin(vfs, "/file/a", b"x")
    filled(disk)
    with pytest.raises(CatalogError):
        upload.write(1, some_bytes(1 << 20))
    with pytest.raises(CatalogError):
        upload.commit()
    assert image_at(vfs, "/file/a").status == "killed"
    assert "no space left" in image_at(vfs, "/file/a").message


def test_a_refusal_on_a_full_disk_leaves_the_image(
    vfs: Vfs, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's answer can still be noted."""
    remove(vfs, f"/file/{IMAGES[0]}")
    filled(disk)
    refusal = StoreRefused("file", "retention")

    def refuse(_url: str) -> None:
        raise refusal

    monkeypatch.setattr(vfs.catalog.store("file"), "delete", refuse)
    (kept,) = scrub(vfs.catalog)
    assert kept.problem is refusal
    assert "retention" in image_at(vfs, f"/file/.trash/{IMAGES[0]}").message


def test_what_makes_no_room_is_told_as_a_full_disk(vfs: Vfs, disk: Path) -> None:
    """It does not use up what is kept for deleting."""
    filled(disk)
    with pytest.raises(CatalogFull):
        make_folders(vfs)
    assert (disk / "catalog.db-reserve").stat().st_size == RESERVE


def test_the_reserve_is_made_again_when_there_is_room(tmp_path: Path) -> None:
    """By pieces it goes, as a whole it comes back."""
    database = tmp_path / "catalog.db"
    database.touch()
    reserve = Reserve(database)
    assert not reserve.release()
    reserve.keep()
    pieces = 0
    while reserve.release():
        pieces += 1
    assert pieces == 4
    reserve.keep()
    assert Path(f"{database}-reserve").stat().st_size == RESERVE


def test_a_server_s_database_has_no_reserve() -> None:
    """Its own administrator cares for its disk."""
    reserve = Reserve(None)
    reserve.keep()
    assert not reserve.release()
