"""Which names the tree takes: the same rule on every way to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.errors import InvalidName
from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    image_at,
    link,
    make_folder,
    names_in,
    new_catalog,
    put,
    put_as_before,
    remove,
    rename,
    settings_at,
)


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[Vfs]:
    """A catalog with an image, a folder and an upload."""
    vfs = Vfs(new_catalog(settings_at(tmp_path)))
    put(vfs, "/file/image")
    make_folder(vfs, "/file/folder")
    begin(vfs, "/file/upload.part", b"data").finish()
    yield vfs
    vfs.close()


def _copy(vfs: Vfs, target: str) -> None:
    vfs.copy(entry(vfs, "/file/image"), vfs.place(target), ALICE, replace=True)


WAYS: dict[str, Callable[[Vfs, str], object]] = {
    "create": lambda vfs, name: vfs.create(vfs.place(f"/file/{name}"), ALICE),
    "make_folder": lambda vfs, name: make_folder(vfs, f"/file/{name}"),
    "rename": lambda vfs, name: rename(vfs, "/file/image", f"/file/{name}"),
    "move to a store": lambda vfs, name: rename(vfs, "/file/image", f"/other/{name}"),
    "rename a folder": lambda vfs, name: rename(vfs, "/file/folder", f"/file/{name}"),
    "publish": lambda vfs, name: rename(vfs, "/file/upload.part", f"/file/{name}"),
    "link": lambda vfs, name: link(vfs, "/file/image", f"/other/{name}"),
    "copy": lambda vfs, name: _copy(vfs, f"/file/{name}"),
    "copy to a store": lambda vfs, name: _copy(vfs, f"/other/{name}"),
}


@pytest.mark.parametrize("name", ["SHA256SUMS", "a\u200bb", "a ", "gnp\u202efile"])
@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_to_a_name_that_is_refused(vfs: Vfs, way: str, name: str) -> None:
    """And nothing has changed."""
    before = names_in(vfs, "/file"), names_in(vfs, "/other")
    with pytest.raises(InvalidName):
        WAYS[way](vfs, name)
    assert (names_in(vfs, "/file"), names_in(vfs, "/other")) == before
    assert image_at(vfs, "/file/image").status is Status.ACTIVE


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", "Icon\r"])
def test_a_desktop_s_file_is_taken_and_never_an_image(vfs: Vfs, name: str) -> None:
    """Written, closed and deleted as any other, so that copying a folder goes on."""
    upload = begin(vfs, f"/file/{name}", b"[.ShellClassInfo]\r\n")
    upload.finish()
    assert image_at(vfs, f"/file/{name}").status is Status.SAVING
    with pytest.raises(InvalidName):
        rename(vfs, "/file/image", f"/other/{name}")
    remove(vfs, f"/file/{name}")
    assert name not in names_in(vfs, "/file")


def test_nothing_in_a_desktop_s_folder_is_an_image(vfs: Vfs) -> None:
    """A disk of Windows was copied whole."""
    make_folder(vfs, "/file/$RECYCLE.BIN")
    begin(vfs, "/file/$RECYCLE.BIN/disk.qcow2", b"data").finish()
    assert image_at(vfs, "/file/$RECYCLE.BIN/disk.qcow2").status is Status.SAVING


@pytest.mark.parametrize("name", ["SHA256SUMS", "a\u200bb", "a "])
def test_what_an_earlier_version_took_can_be_kept_moved_and_deleted(vfs: Vfs, name: str) -> None:
    """Only new names are refused."""
    image = put_as_before(vfs, f"/file/{name}")
    rename(vfs, f"/file/{name}", f"/file/folder/{name}")
    rename(vfs, f"/file/folder/{name}", f"/other/{name}")
    remove(vfs, f"/other/{name}")
    rename(vfs, f"/other/.trash/{name}", f"/other/{name}")
    rename(vfs, f"/other/{name}", "/other/better")
    assert image_at(vfs, "/other/better").id == image.id
