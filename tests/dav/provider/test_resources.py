"""COPY and MOVE: within a store, between stores, to the trash and back (RFC 4918 §9.8, §9.9)."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from catalog.errors import Forbidden
from catalog.model.access import ADMIN
from catalog.model.status import Status
from catalog.rules import fields
from catalog.tree.vfs import Vfs
from tests.dav.server import ANONYMOUS, Served
from tests.kit.catalog import (
    entry,
    image_at,
    link,
    make_folder,
    names_in,
    put,
    read,
    remove,
    set_fields,
    some_bytes,
)

DATA = some_bytes(200_000, seed=5)

_numbers = count()


@pytest.fixture
def path(served: Served) -> str:
    """The path of an image of its own, with a property."""
    path = f"/file/image-{next(_numbers)}.img"
    number = served.add(path, DATA).number
    fields.set_attributes(served.vfs.catalog, number, {"property.os_distro": "debian"}, ANONYMOUS)
    return path


def _ask(served: Served, method: str, source: str, target: str, *headers: str) -> int:
    return served.ask(f"{method} {source}", f"Destination: {target}", *headers).status


def _trashed(path: str) -> str:
    return path.replace("/file/", "/file/.trash/")


# -- MOVE ------------------------------------------------------------------------------


def test_move_keeps_the_image(served: Served, path: str) -> None:
    """A new name, and nothing else: id, tag, data and properties stay."""
    before, etag = served.image(path), served.ask(f"HEAD {path}").headers["etag"]
    assert _ask(served, "MOVE", path, f"{path}.new") == 201
    after = served.image(f"{path}.new")
    assert (after.id, after.mtime) == (before.id, before.mtime)
    assert served.ask(f"GET {path}.new").headers["etag"] == etag
    assert served.vfs.catalog.details(after.number).properties == {"os_distro": "debian"}
    assert served.ask(f"GET {path}").status == 404


def test_move_into_a_folder(served: Served, path: str) -> None:
    """Also with an absolute URL as its destination."""
    make_folder(served.vfs, f"{path}.d", ANONYMOUS)
    target = f"{path}.d/%C3%BC%20.img"
    url = f"http://images.test{target}"
    assert _ask(served, "MOVE", path, url) == 201
    assert read(served.vfs, f"{path}.d/ü .img") == DATA


NAMES = [
    *("a;b", "a?b", "a#b", "a%b", "a+b", "a b", "a&=:@!$'()*,[]{}|^~`\"<>\\-_.b"),
    *("%3B", "%", "100%25", ";", "?", "a;b?c#d%3Fe", "ü 像 𝄞", "e\u0301", "x;", "a?b=c"),
]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("method", ["MOVE", "COPY"])
@pytest.mark.parametrize("name", NAMES)
def test_every_character_of_a_name(served: Served, name: str, method: str, raw: bool) -> None:
    """In the source's name and in the destination's, quoted as strictly or as little as can be."""
    folder = f"/file/names-{next(_numbers)}"
    for path in (folder, f"{folder}/to"):
        make_folder(served.vfs, path, ANONYMOUS)
    image = served.add(f"{folder}/{name}", DATA)
    quoted = quote(name, safe="".join(set(RAW)) if raw else "")
    host = "http://images.test" if raw else ""
    source, target = f"{folder}/{quoted}", f"{host}{folder}/to/{quoted}"
    assert _ask(served, method, source, target) == 201
    assert names_in(served.vfs, f"{folder}/to") == {name}
    assert (served.image(f"{folder}/to/{name}").id == image.id) == (method == "MOVE")
    answer = served.ask(f"PROPFIND {folder}/to", "Depth: 1")
    assert f"{folder}/to/{quote(name)}</" in answer.body.decode().replace("%7E", "~")
    # Onto itself, and below itself, under a name that wsgidav cannot read.
    again = f"{folder}/to/{quoted}"
    assert _ask(served, method, again, again) == 403
    assert served.ask(f"DELETE {again}").status == 204
    assert served.ask(f"MKCOL {again}").status == 201
    assert _ask(served, method, again, f"{again}/{quoted}") == 403
    assert _ask(served, method, f"{again}/", f"{folder}/to/2{quoted}/") == 201
    assert f"2{name}" in names_in(served.vfs, f"{folder}/to")


RAW = ";+&=:@!$'()*,~"
"""What a URL's path may hold besides letters and digits (RFC 3986 §3.3)."""


@pytest.mark.parametrize(
    "target",
    [
        "/file/a?b",
        "/file/a%2Fb",
        "/file/%FF",
        "/file/a%",
        "/file/../a",
        "file/a",
        "http://[bad/a",
        "http://images.test",
        "",
    ],
)
def test_a_destination_that_is_no_name(served: Served, path: str, target: str) -> None:
    """Refused rather than taken for some other name."""
    members = names_in(served.vfs, "/file")
    assert _ask(served, "COPY", path, target) == 400
    assert names_in(served.vfs, "/file") == members


def test_move_over_an_image(served: Served, path: str) -> None:
    """The one that was there goes to the trash; with Overwrite: F neither is touched."""
    old = served.add(f"{path}.old")
    moved = served.image(path)
    assert _ask(served, "MOVE", path, f"{path}.old", "Overwrite: F") == 412
    assert (served.image(path), served.image(f"{path}.old")) == (moved, old)
    assert _ask(served, "MOVE", path, f"{path}.old", "Overwrite: T") == 204
    assert served.image(f"{path}.old").id == moved.id
    assert image_at(served.vfs, _trashed(f"{path}.old")).id == old.id


@pytest.mark.parametrize(("method", "step"), [("MOVE", "rename"), ("COPY", "copy")])
def test_overwrite_f_spares_what_has_just_come(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch, method: str, step: str
) -> None:
    """Also what came when the request had looked already."""
    change = getattr(served.vfs, step)

    def after_another(*arguments: Any, **options: Any) -> None:
        put(served.vfs, f"{path}.new", b"another", ANONYMOUS)
        change(*arguments, **options)

    monkeypatch.setattr(served.vfs, step, after_another)
    assert _ask(served, method, path, f"{path}.new", "Overwrite: F") == 409
    assert read(served.vfs, f"{path}.new") == b"another"
    assert read(served.vfs, path) == DATA


def test_move_to_another_store(served: Served, path: str) -> None:
    """The data moves, the image stays what it is."""
    before = served.image(path)
    target = path.replace("/file/", "/memory/")
    assert _ask(served, "MOVE", path, target) == 201
    after = served.image(target)
    assert (after.id, after.os_hash_value) == (before.id, before.os_hash_value)
    assert read(served.vfs, target) == DATA
    assert [entry.store for entry in served.vfs.entries_of(after.number)] == ["memory"]


def test_move_to_the_trash_and_back(served: Served, path: str) -> None:
    """A deleted image is restored with its id and properties."""
    before = served.image(path)
    assert _ask(served, "MOVE", path, _trashed(path)) in (201, 204)
    assert image_at(served.vfs, _trashed(path)).status is Status.PENDING_DELETE
    assert _ask(served, "MOVE", _trashed(path), path) == 201
    after = served.image(path)
    assert (after.id, after.status) == (before.id, Status.ACTIVE)
    assert served.vfs.catalog.details(after.number).properties == {"os_distro": "debian"}
    assert served.ask(f"GET {path}").body == DATA


def test_move_of_a_folder(served: Served, path: str) -> None:
    """A folder moves with all that is in it."""
    make_folder(served.vfs, f"{path}.d", ANONYMOUS)
    image = served.add(f"{path}.d/a.img")
    assert _ask(served, "MOVE", f"{path}.d/", f"{path}.e/") == 201
    assert served.image(f"{path}.e/a.img").id == image.id


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/file/missing/a.img", 409),
        ("/a.img", 403),
        ("/.by-id/a.img", 403),
        ("/file/a%00b", 400),
    ],
)
def test_nowhere_to_go(served: Served, path: str, method: str, target: str, status: int) -> None:
    """Where no image can be, none goes."""
    assert _ask(served, method, path, target) == status
    assert served.ask(f"GET {path}").body == DATA


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_onto_itself(served: Served, path: str, method: str) -> None:
    """Source and destination the same are refused (RFC 4918 §9.8.5)."""
    assert _ask(served, method, path, path) == 403
    assert served.ask(f"GET {path}").body == DATA


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_over_a_protected_image(served: Served, path: str, method: str) -> None:
    """What is protected stays."""
    old = served.add(f"{path}.old")
    set_fields(served.vfs, f"{path}.old", ADMIN, protected="true")
    assert _ask(served, method, path, f"{path}.old") == 403
    assert served.image(f"{path}.old").id == old.id
    assert served.ask(f"GET {path}").body == DATA


def test_move_of_another_ones_image(served: Served) -> None:
    """Only who owns an image moves it."""
    put(served.vfs, "/file/of-another.img", DATA, ADMIN)
    assert _ask(served, "MOVE", "/file/of-another.img", "/file/mine.img") == 403
    assert served.ask("HEAD /file/of-another.img").status == 200


# -- COPY ------------------------------------------------------------------------------


def test_copy_is_a_new_image(served: Served, path: str) -> None:
    """Another id with the same data, digests and properties; the source is as it was."""
    source = served.image(path)
    assert _ask(served, "COPY", path, f"{path}.copy") == 201
    copy = served.image(f"{path}.copy")
    assert copy.id != source.id
    assert (copy.status, copy.os_hash_value) == (Status.ACTIVE, source.os_hash_value)
    assert read(served.vfs, f"{path}.copy") == DATA
    assert served.vfs.catalog.details(copy.number).properties == {"os_distro": "debian"}
    assert served.image(path) == source
    etags = {served.ask(f"HEAD {it}").headers["etag"] for it in (path, f"{path}.copy")}
    assert len(etags) == 2


def test_copy_writes_no_bytes(served: Served, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a store of files the kernel copies, or shares, the data; we only read to compare."""
    copied: list[int] = []

    def copy_file_range(*arguments: Any) -> int:
        copied.append(original(*arguments))
        return copied[-1]

    original = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    for name in ("write", "pwrite", "pwritev"):
        monkeypatch.setattr(os, name, _refuse)
    assert _ask(served, "COPY", path, f"{path}.copy") == 201
    assert sum(copied) in (0, len(DATA)), "reflinked, or copied in the kernel"


def _refuse(*_: object) -> None:
    raise AssertionError("data is written by the process")


@pytest.mark.parametrize("target", ["/copy.img", "/other/.trash/copy.img", "/.by-id/copy.img"])
def test_copy_to_where_no_image_can_be(served: Served, path: str, target: str) -> None:
    """Refused by the tree itself, before any data is copied."""
    source, place = entry(served.vfs, path), served.vfs.place(target)
    with pytest.raises(Forbidden):
        served.vfs.copy(source, place, ANONYMOUS, replace=True)
    with pytest.raises(Forbidden):
        served.vfs.link(source.image.number, place, ANONYMOUS)


def test_copy_is_independent(served: Served, path: str) -> None:
    """Either can go without the other."""
    assert _ask(served, "COPY", path, f"{path}.copy") == 201
    assert served.ask(f"DELETE {path}").status == 204
    assert served.ask(f"GET {path}.copy").body == DATA


def test_copy_over_an_image(served: Served, path: str) -> None:
    """Overwrite: F refuses, T and nothing replace; the old one goes to the trash."""
    old = served.add(f"{path}.old")
    assert _ask(served, "COPY", path, f"{path}.old", "Overwrite: F") == 412
    assert served.image(f"{path}.old") == old
    assert _ask(served, "COPY", path, f"{path}.old") == 204
    assert read(served.vfs, f"{path}.old") == DATA
    assert image_at(served.vfs, _trashed(f"{path}.old")).id == old.id


def test_copy_to_another_store(served: Served, path: str) -> None:
    """It replicates: the same image with a second copy of its data."""
    target = path.replace("/file/", "/other/")
    assert _ask(served, "COPY", path, target) == 201
    image = served.image(path)
    assert served.image(target).id == image.id
    stores = {entry.store for entry in served.vfs.entries_of(image.number)}
    assert stores == {"file", "other"}
    assert served.ask(f"DELETE {path}").status == 204
    assert served.ask(f"GET {target}").body == DATA


def test_copy_of_a_folder(served: Served, path: str) -> None:
    """With its members, or with Depth: 0 as an empty folder."""
    make_folder(served.vfs, f"{path}.d", ANONYMOUS)
    make_folder(served.vfs, f"{path}.d/below", ANONYMOUS)
    for name in ("a.img", "below/b.img"):
        served.add(f"{path}.d/{name}", DATA)
    assert _ask(served, "COPY", f"{path}.d/", f"{path}.flat/", "Depth: 0") == 201
    assert names_in(served.vfs, f"{path}.flat") == set()
    assert _ask(served, "COPY", f"{path}.d/", f"{path}.deep/", "Depth: infinity") == 201
    assert names_in(served.vfs, f"{path}.deep") == {"a.img", "below"}
    assert read(served.vfs, f"{path}.deep/below/b.img") == DATA
    assert served.image(f"{path}.deep/a.img").id != served.image(f"{path}.d/a.img").id


def _deactivate(served: Served, path: str) -> None:
    set_fields(served.vfs, path, ADMIN, status="deactivated")


def _queue(served: Served, path: str) -> None:
    assert served.ask(f"DELETE {path}").status == 204
    assert served.ask(f"PUT {path}").status == 201


def _link(served: Served, path: str) -> None:
    folder = f"/other/linked-{next(_numbers)}"
    make_folder(served.vfs, folder, ANONYMOUS)
    link(served.vfs, path, f"{folder}/b", ANONYMOUS)


def _give_away(served: Served, path: str) -> None:
    set_fields(served.vfs, path, ADMIN, owner="berta")


@pytest.mark.parametrize(
    ("store", "spoil", "status"),
    [
        ("file", _deactivate, 403),
        ("file", _queue, 409),
        ("other", _give_away, 403),
        ("other", _link, 403),
    ],
)
def test_copy_of_a_folder_is_all_or_nothing(
    served: Served, path: str, store: str, spoil: Callable[[Served, str], None], status: int
) -> None:
    """What cannot be copied, however deep, keeps all from it, and the target from its end."""
    folder, target = f"{path}.d", f"{path}.target".replace("/file/", f"/{store}/")
    for name in (folder, f"{folder}/below", target):
        make_folder(served.vfs, name, ANONYMOUS)
    for name in (f"{folder}/a", f"{folder}/below/b", f"{target}/old"):
        served.add(name)
    spoil(served, f"{folder}/below/b")
    answer = served.ask(f"COPY {folder}", f"Destination: {target}")
    assert (answer.status, b"b:" in answer.body) == (status, True), answer.body
    assert names_in(served.vfs, target) == {"old"}
    assert _ask(served, "COPY", folder, f"{target}.new") == status
    assert f"{target}.new".rpartition("/")[2] not in names_in(served.vfs, f"/{store}")
    remove(served.vfs, f"{folder}/below/b", ADMIN)
    assert _ask(served, "COPY", folder, target) == 204
    assert names_in(served.vfs, target) == {"a", "below"}


def test_copy_of_images_to_a_temporary_folder(served: Served, path: str) -> None:
    """Refused before the folder is made: nothing in it would ever be an image."""
    make_folder(served.vfs, f"{path}.d", ANONYMOUS)
    served.add(f"{path}.d/a")
    assert _ask(served, "COPY", f"{path}.d", f"{path}.part") == 400
    assert served.ask(f"PROPFIND {path}.part", "Depth: 0").status == 404


def remove_folder(vfs: Vfs, path: str) -> None:
    """rmdir(1), by an administrator."""
    vfs.remove_folder(vfs.place(path), ADMIN)


def _give_folder_away(served: Served, path: str) -> None:
    remove_folder(served.vfs, path)
    make_folder(served.vfs, path, ADMIN)


@pytest.mark.parametrize(
    ("source", "store", "spoil"),
    [(".d", "file", _give_folder_away), (".d", "other", None), ("", "file", _give_away)],
)
def test_refused_move_leaves_its_target(
    served: Served,
    path: str,
    source: str,
    store: str,
    spoil: Callable[[Served, str], None] | None,
) -> None:
    """A folder that would have been replaced is still there with all that is in it."""
    target = f"{path}.target".replace("/file/", f"/{store}/")
    make_folder(served.vfs, f"{path}.d", ANONYMOUS)
    make_folder(served.vfs, target, ANONYMOUS)
    served.add(f"{target}/old")
    if spoil:
        spoil(served, path + source)
    assert _ask(served, "MOVE", path + source, target) == 403
    assert names_in(served.vfs, target) == {"old"}


def test_copy_of_another_ones_image(served: Served) -> None:
    """Who may read an image may copy it and owns the copy; a private one may not be read."""
    put(served.vfs, "/file/public.img", DATA, ADMIN)
    assert _ask(served, "COPY", "/file/public.img", "/file/own.img") == 201
    assert served.image("/file/own.img").owner == ANONYMOUS.name
    set_fields(served.vfs, "/file/public.img", ADMIN, visibility="private")
    assert _ask(served, "COPY", "/file/public.img", "/file/own-2.img") == 404


def test_copy_of_an_image_without_data(served: Served) -> None:
    """There is nothing to copy of what is queued."""
    assert served.ask("PUT /file/queued.img").status == 201
    assert _ask(served, "COPY", "/file/queued.img", "/file/queued-2.img") == 409
    assert served.ask("HEAD /file/queued-2.img").status == 404


def _lose_data(served: Served, path: str) -> None:
    location = served.vfs.entries_of(served.image(path).number)[0].location
    assert location.url
    Path(location.url.removeprefix("file://")).unlink()


def test_copy_that_fails_leaves_nothing(served: Served, path: str) -> None:
    """When the data is not there the copy is not either."""
    _lose_data(served, path)
    members = names_in(served.vfs, "/file")
    assert _ask(served, "COPY", path, f"{path}.copy") in (404, 503)
    assert names_in(served.vfs, "/file") == members


def test_delete_of_a_folder_is_all_or_nothing(served: Served, path: str) -> None:
    """A protected image or another's folder in it keeps all from being deleted halfway."""
    folder = f"{path}.d"
    make_folder(served.vfs, folder, ANONYMOUS)
    for name in ("a", "b"):
        put(served.vfs, f"{folder}/{name}", DATA, ANONYMOUS)
    set_fields(served.vfs, f"{folder}/b", ANONYMOUS, protected="true")
    assert served.ask(f"DELETE {folder}").status == 403
    assert names_in(served.vfs, folder) == {"a", "b"}
    set_fields(served.vfs, f"{folder}/b", ANONYMOUS, protected="false")
    make_folder(served.vfs, f"{folder}/c", ADMIN)
    assert served.ask(f"DELETE {folder}").status == 403
    assert names_in(served.vfs, folder) == {"a", "b", "c"}
    remove_folder(served.vfs, f"{folder}/c")
    assert served.ask(f"DELETE {folder}").status == 204
