"""COPY and MOVE that replace a folder, or an image by one: all of it, or it is as before.

RFC 4918 §9.8.4 and §9.9.3 want what is there deleted: it is, once the new is in its place.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import StoreRefused
from catalog.model.tree import Entry, Folder, Place
from catalog.tree.vfs import Vfs
from tests.dav.server import ANONYMOUS, Served
from tests.kit.catalog import folder_at, image_at, make_folder, names_in, read, some_bytes

DATA = some_bytes(200_000, seed=5)

_numbers = count()


@pytest.fixture
def path(served: Served) -> str:
    """The path of an image of its own."""
    path = f"/file/image-{next(_numbers)}.img"
    served.add(path, DATA)
    return path


def _ask(served: Served, method: str, source: str, target: str) -> int:
    return served.ask(f"{method} {source}", f"Destination: {target}").status


def _two_folders(served: Served, path: str) -> tuple[str, str]:
    """A folder with `a.img`, `below/b.img`, and another one with other images of those names."""
    source, target = f"{path}.d", f"{path}.target"
    for folder in (source, f"{source}/below", target, f"{target}/below"):
        make_folder(served.vfs, folder, ANONYMOUS)
    for name in ("a.img", "below/b.img"):
        served.add(f"{source}/{name}", DATA)
        served.add(f"{target}/{name}")
    return source, target


def _all_paths(served: Served, folder: str) -> set[str]:
    """What is in a folder and below, by name and number of its image."""
    found = set()
    for node in served.vfs.members(folder_at(served.vfs, folder).number):
        if isinstance(node, Folder):
            found |= _all_paths(served, f"{folder}/{node.name}") | {f"{folder}/{node.name}"}
        else:
            found.add(f"{folder}/{node.name} {node.image.number}")
    return found


@pytest.mark.parametrize("over", ["folder", "image", "nothing"])
def test_copy_of_a_folder_that_fails_half_way(served: Served, path: str, over: str) -> None:
    """What was there is as it was, and nothing of the copy stays, not even in the trash."""
    source, target = _two_folders(served, path)
    target = {"folder": target, "image": path, "nothing": f"{path}.new"}[over]
    location = served.vfs.entries_of(served.image(f"{source}/below/b.img").number)[0].location
    assert location.url
    Path(location.url.removeprefix("file://")).unlink()
    before = _all_paths(served, "/file"), names_in(served.vfs, "/file/.trash")
    assert _ask(served, "COPY", source, target) in (404, 503)
    assert (_all_paths(served, "/file"), names_in(served.vfs, "/file/.trash")) == before


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize("source_is_folder", [True, False])
def test_target_that_cannot_all_be_deleted(
    served: Served, path: str, method: str, source_is_folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of it has its name again, and so has the source; nothing else is there."""
    source, target = _two_folders(served, path)
    source = source if source_is_folder else path
    original, kept = Vfs.remove, served.image(f"{target}/below/b.img").number

    def remove_one(vfs: Vfs, place: Place, *arguments: Any) -> None:
        node = vfs.lookup(place.folder, place.name)
        if isinstance(node, Entry) and node.image.number == kept:
            raise StoreRefused("file", "retention")
        original(vfs, place, *arguments)

    before = _all_paths(served, "/file")
    monkeypatch.setattr(Vfs, "remove", remove_one)
    assert _ask(served, method, source, target) == 503
    monkeypatch.undo()
    assert _all_paths(served, "/file") == before - {f"{target}/a.img"}


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize(
    ("source", "target", "members"),
    [
        (".d", ".target", {"a.img", "below"}),
        (".d", "", {"a.img", "below"}),
        ("", ".target", None),
        ("/memory/", ".target", None),
    ],
)
def test_replacing_one_kind_by_another(
    served: Served, path: str, method: str, source: str, target: str, members: set[str] | None
) -> None:
    """A folder or an image takes the place of a folder or an image; the old is in the trash."""
    _two_folders(served, path)
    if source == "/memory/":
        served.add(f"/memory/{path.rpartition('/')[2]}", DATA)
    given = source + path.rpartition("/")[2] if source == "/memory/" else path + source
    around = names_in(served.vfs, "/file")
    replaced = served.image(f"{path}{target}{'/a.img' if target else ''}").id
    assert _ask(served, method, given, path + target) == 204
    if members is None:
        assert read(served.vfs, path + target) == DATA
    else:
        assert names_in(served.vfs, path + target) == members
        assert read(served.vfs, f"{path}{target}/below/b.img") == DATA
    gone = {given.rpartition("/")[2]} if method == "MOVE" and given.startswith("/file/") else set()
    assert names_in(served.vfs, "/file") == around - gone
    trashed = "/file/.trash/" + (path.rpartition("/")[2] if not target else "a.img")
    assert image_at(served.vfs, trashed).id == replaced
