"""Whatever copies, compares: no copy of damaged bytes is active under digests of good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.copies.stream import read_intact
from catalog.errors import DataDamaged, DigestMismatch
from catalog.model.access import ADMIN
from catalog.model.image import External
from catalog.rules import entries
from catalog.tree.vfs import Vfs
from catalog.upkeep.verify import Verdict, verify
from tests.kit.catalog import (
    ALICE,
    entry,
    image_at,
    keys_in,
    link,
    names_in,
    put,
    read,
    some_bytes,
    staged_files,
)

DATA = some_bytes(5 << 20)
"""Two chunks, the last of them short."""


def damage(tmp_path: Path, store: str, image_id: str, offset: int = 9 << 19) -> None:
    """Turn bytes of a stored image, as a bad disk does: same size, same name."""
    path = tmp_path / store / image_id
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def copy(vfs: Vfs, source: str, target: str) -> None:
    """WebDAV's COPY."""
    vfs.copy(entry(vfs, source), vfs.place(target), ALICE, replace=False)


def test_a_copy_of_what_nobody_knew_to_be_damaged_is_refused(vfs: Vfs, tmp_path: Path) -> None:
    """No new image, nothing left of the trial, and the old copy is known for what it is."""
    image = put(vfs, "/file/a", DATA)
    damage(tmp_path, "file", image.id)
    with pytest.raises(DataDamaged):
        copy(vfs, "/file/a", "/file/b")
    assert names_in(vfs, "/file") == {"a"}
    assert keys_in(vfs) == {image.id}


def test_a_copy_takes_the_good_chunks_of_another(vfs: Vfs, tmp_path: Path) -> None:
    """The damage of one copy is found by copying, and the new image is whole."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    damage(tmp_path, "file", image.id)
    copy(vfs, "/file/a", "/file/b")
    assert (tmp_path / "file" / image_at(vfs, "/file/b").id).read_bytes() == DATA
    assert [each.verdict for each in verify(vfs.catalog, image_at(vfs, "/file/b"), ADMIN)] == [
        Verdict.INTACT
    ]


def test_a_store_that_copies_badly_is_not_believed(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is right and what the store makes of it is not."""
    put(vfs, "/memory/a", DATA)
    memory = vfs.catalog.store("memory")
    real = memory.copy

    def badly(url: str, key: str) -> str:
        copied = real(url, key)
        return memory.put(key, DATA[:-1] + b"x") and copied  # type: ignore[attr-defined]

    monkeypatch.setattr(memory, "copy", badly)
    copy(vfs, "/memory/a", "/memory/b")
    assert read(vfs, "/memory/b") == DATA


@pytest.mark.parametrize("target", ["/other/b", "/memory/b"])
def test_a_link_to_damaged_data_is_refused(vfs: Vfs, tmp_path: Path, target: str) -> None:
    """A second copy of bad bytes would count as a good one."""
    image = put(vfs, "/file/a", DATA)
    damage(tmp_path, "file", image.id)
    with pytest.raises(DataDamaged):
        link(vfs, "/file/a", target)
    assert vfs.catalog.details(image.number).stores == ("file",)


def test_opening_damaged_data_again_to_write_is_refused(vfs: Vfs, tmp_path: Path) -> None:
    """It would get new digests: the damage would be the image from then on."""
    image = put(vfs, "/file/a", DATA)
    damage(tmp_path, "file", image.id)
    with pytest.raises(DataDamaged):
        vfs.uploads.reopen(image.number)
    assert image_at(vfs, "/file/a").status == "active"
    assert staged_files(tmp_path) == []


def external(vfs: Vfs, data: bytes, expected: str | None = None) -> int:
    """An image without digests, as a link or an adopted object is."""
    store = vfs.catalog.store("memory")
    url = store.put("outside", data)  # type: ignore[attr-defined]
    made = External(url, len(data), "raw", len(data), expected)
    return entries.register(vfs.catalog, vfs.place("/memory/a"), made, ALICE).image.number


def test_a_first_copy_gives_both_the_same_digests(vfs: Vfs) -> None:
    """What was copied is what every later reader is held to."""
    number = external(vfs, DATA)
    link(vfs, "/memory/a", "/file/a")
    image = vfs.catalog.image(number)
    assert image.os_hash_value is not None
    assert {each.verdict for each in verify(vfs.catalog, image, ADMIN)} == {Verdict.INTACT}


def test_a_first_copy_of_other_data_than_announced_is_refused(vfs: Vfs) -> None:
    """The digest that was given with the link counts for copies as well."""
    number = external(vfs, DATA, "0" * 64)
    with pytest.raises(DigestMismatch):
        link(vfs, "/memory/a", "/file/a")
    assert vfs.catalog.details(number).stores == ("memory",)
    assert keys_in(vfs) == set()


def test_data_that_changes_between_two_readers_is_refused(vfs: Vfs) -> None:
    """One of two that read an image without digests at once records them; the other compares."""
    number = external(vfs, DATA)
    blocks = read_intact(vfs.catalog, vfs.catalog.image(number))
    next(blocks)
    vfs.catalog.store("memory").put("outside", DATA[:-1] + b"x")  # type: ignore[attr-defined]
    list(verify(vfs.catalog, vfs.catalog.image(number), ADMIN))
    with pytest.raises(DigestMismatch, match="another reader"):
        list(blocks)
