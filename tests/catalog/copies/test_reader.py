"""Reading from whichever copy answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.errors import Conflict, ImageKilled, NotFound, StoreUnavailable
from catalog.model.access import ADMIN
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, begin, link, put, read, read_image, remove


def test_ranges_are_cut_at_the_end(vfs: Vfs) -> None:
    """[offset, offset + size), nothing behind the end."""
    reader = vfs.open(put(vfs, "/file/a", b"0123456789").number, ALICE)
    assert reader.size == 10
    assert reader.read_at(8, 5) == b"89"
    assert reader.read_at(10, 5) == b""
    reader.close()


def test_another_copy_is_read_when_the_first_is_gone(vfs: Vfs, tmp_path: Path) -> None:
    """Data that is missing in one store is read from the other."""
    image = put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    (tmp_path / "file" / image.id).unlink()
    assert read(vfs, "/file/a") == b"data"


def test_another_copy_is_read_when_a_store_is_away(vfs: Vfs, tmp_path: Path) -> None:
    """A store that does not answer is passed over."""
    put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    (tmp_path / "file").rename(tmp_path / "unmounted")
    assert read(vfs, "/other/a") == b"data"


def test_no_copy_at_all(vfs: Vfs, tmp_path: Path) -> None:
    """Then it is StoreUnavailable: the image is there, its data does not answer."""
    image = put(vfs, "/file/a", b"data")
    (tmp_path / "file" / image.id).unlink()
    with pytest.raises(StoreUnavailable, match="no copy"):
        read(vfs, "/file/a")


def test_what_has_no_data_is_not_opened(vfs: Vfs) -> None:
    """Each status says its own reason."""
    queued = vfs.create(vfs.place("/file/queued"), ALICE).image
    with pytest.raises(Conflict, match="no data yet"):
        read_image(vfs, queued.number)
    saving = begin(vfs, "/file/saving", b"x")
    with pytest.raises(Conflict, match="still being uploaded"):
        read_image(vfs, saving.image.number)
    saving.cancel("its reason")
    with pytest.raises(ImageKilled, match="its reason"):
        read_image(vfs, saving.image.number)
    remove(vfs, "/file/saving")
    with pytest.raises(ImageKilled):
        read_image(vfs, saving.image.number)
    with pytest.raises(NotFound):
        read_image(vfs, 4711)


def test_an_open_reader_outlives_its_image(vfs: Vfs) -> None:
    """Deleting and purging takes no data from whoever has it open."""
    reader = vfs.open(put(vfs, "/file/a", b"data").number, ALICE)
    remove(vfs, "/file/a")
    remove(vfs, "/file/.trash/a")
    assert reader.read_at(0, 10) == b"data"
    reader.close()
    reader.close()


def test_reading_from_memory(vfs: Vfs) -> None:
    """A store without files reads just so."""
    put(vfs, "/memory/a", b"data")
    assert read(vfs, "/memory/a", ADMIN) == b"data"
