"""Two names that look the same cannot both exist, and each finds what has the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread
from unicodedata import normalize

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from catalog.errors import AlreadyExists, CatalogError, Conflict, Locked, NotFound
from catalog.model import names
from catalog.model.access import ADMIN
from catalog.model.status import Status
from catalog.rules import locks
from catalog.rules.locks import LockRequest
from catalog.service.bootstrap import open_catalog
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    folder_at,
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

NFC, NFD = "\u00e9t\u00e9.img", "e\u0301te\u0301.img"
PAIRS = [
    (NFC, NFD),
    (NFD, NFC),
    ("K.img", "\u212a.img"),  # Kelvin sign
    ("\u03a9", "\u2126"),  # Ohm sign
    ("a b", "a\u00a0b"),
    ("a b", "a\u202fb"),
    ("\uac00", "\u1100\u1161"),  # Hangul
    ("q\u0323\u0307", "q\u0307\u0323"),  # two marks, in either order
]


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[Vfs]:
    """An empty catalog."""
    vfs = Vfs(new_catalog(settings_at(tmp_path)))
    yield vfs
    vfs.close()


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_either_form_finds_the_image(vfs: Vfs, name: str, other: str) -> None:
    """To read, rename and delete; a listing shows the name as it was given."""
    image = put(vfs, f"/file/{name}")
    assert image_at(vfs, f"/file/{other}").id == image.id
    assert names_in(vfs, "/file") == {name}
    rename(vfs, f"/file/{other}", "/file/plain")
    rename(vfs, "/file/plain", f"/file/{other}")
    assert names_in(vfs, "/file") == {other}
    remove(vfs, f"/file/{name}")
    assert names_in(vfs, "/file") == set()


WAYS: dict[str, Callable[[Vfs, str], object]] = {
    "create": lambda vfs, name: vfs.create(vfs.place(f"/file/{name}"), ALICE),
    "make_folder": lambda vfs, name: make_folder(vfs, f"/file/{name}"),
    "rename": lambda vfs, name: rename(vfs, "/file/image", f"/file/{name}", replace=False),
    "move to a store": lambda vfs, name: rename(
        vfs, "/other/image", f"/file/{name}", replace=False
    ),
    "publish": lambda vfs, name: rename(vfs, "/file/upload.part", f"/file/{name}", replace=False),
    "link": lambda vfs, name: link(vfs, "/other/image", f"/file/{name}"),
    "restore": lambda vfs, name: rename(vfs, "/file/.trash/gone", f"/file/{name}", replace=False),
    "copy": lambda vfs, name: vfs.copy(
        entry(vfs, "/file/image"), vfs.place(f"/file/{name}"), ALICE, replace=False
    ),
}


@pytest.mark.parametrize("taken_by_folder", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_no_way_makes_a_second_one(vfs: Vfs, way: str, taken_by_folder: bool) -> None:
    """Whether an image or a folder has the name."""
    for path in ("/file/image", "/other/image", "/file/gone"):
        put(vfs, path)
    remove(vfs, "/file/gone")
    begin(vfs, "/file/upload.part", b"data").finish()
    if taken_by_folder:
        make_folder(vfs, f"/file/{NFD}")
    else:
        put(vfs, f"/file/{NFD}")
    before = names_in(vfs, "/file")
    with pytest.raises(CatalogError) as caught:
        WAYS[way](vfs, NFC)
    assert not isinstance(caught.value, NotFound)
    assert names_in(vfs, "/file") == before


def test_a_folder_in_another_form(vfs: Vfs) -> None:
    """It is one folder; what is in it is found through both, and a rename changes the form."""
    make_folder(vfs, f"/file/{NFD}")
    with pytest.raises(AlreadyExists):
        make_folder(vfs, f"/file/{NFC}")
    image = put(vfs, f"/file/{NFC}/a")
    assert image_at(vfs, f"/file/{NFD}/a").id == image.id
    rename(vfs, f"/file/{NFD}", f"/file/{NFC}")
    assert names_in(vfs, "/file") == {NFC}
    assert folder_at(vfs, f"/file/{NFD}").name == NFC


def test_a_replacement_takes_the_place_of_the_other_form(vfs: Vfs) -> None:
    """As `cp -f` and a PUT do: the old one is in the trash, where each has a name of its own."""
    first = put(vfs, f"/file/{NFD}")
    put(vfs, "/file/new")
    rename(vfs, "/file/new", f"/file/{NFC}")
    assert names_in(vfs, "/file") == {NFC}
    assert vfs.catalog.image(first.number).status is Status.PENDING_DELETE
    remove(vfs, f"/file/{NFC}")
    assert len({names.alike(name) for name in names_in(vfs, "/file/.trash")}) == 2


def test_of_many_who_create_both_forms_at_once_one_wins(vfs: Vfs) -> None:
    """The rule is looked at where the name is written, in one transaction."""
    barrier, made = Barrier(8), []

    def create(name: str) -> None:
        barrier.wait()
        try:
            made.append(vfs.create(vfs.place(f"/file/{name}"), ALICE))
        except (AlreadyExists, Conflict):
            return

    threads = [Thread(target=create, args=(name,)) for name in (NFC, NFD) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_lock_holds_for_each_form(vfs: Vfs) -> None:
    """Else the other form would be a way around it."""
    lock = locks.create(vfs.catalog, LockRequest(f"/file/{NFD}", "alice"))
    for form in (NFC, NFD):
        assert locks.over(vfs.catalog, f"/file/{form}") == locks.at(vfs.catalog, f"/file/{form}")
        assert lock.covers(f"/file/{form}") or names.alike(NFD) == NFC
        with pytest.raises(Locked):
            locks.check_write(vfs.catalog, f"/file/{form}", "bob", [])
        with pytest.raises(Locked):
            locks.check_write(vfs.catalog, "/file", "bob", [], below=True)
    locks.drop_tree(vfs.catalog, f"/file/{NFC}")
    locks.check_write(vfs.catalog, f"/file/{NFD}", "bob", [])


@given(st.text(min_size=1, max_size=60))
def test_the_form_is_its_own_form(text: str) -> None:
    """And that of every other normal form of the name."""
    form = names.alike(text)
    assert names.alike(form) == form
    for kind in ("NFC", "NFD"):
        assert names.alike(normalize(kind, text)) == form
    assert len(form) <= 3 * len(text.encode(errors="replace"))


# -- a catalog of an earlier version ------------------------------------------------------


def test_both_forms_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    """The migration renames nothing, and fails for nothing; each is found by its own name."""
    settings = settings_at(tmp_path)
    vfs = Vfs(new_catalog(settings))
    first, second = put(vfs, f"/file/{NFD}"), put(vfs, "/file/second")
    make_folder(vfs, f"/other/{NFD}")
    vfs.close()
    engine = create_engine(settings.catalog.url)
    config = Config()
    config.set_main_option("script_location", "catalog.repository:migrations")
    with engine.begin() as connection:
        for table, folder in (("folders", "parent"), ("locations", "folder")):
            connection.execute(text(f"DROP INDEX ix_{table}_{folder}_alike"))
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN alike"))
        connection.execute(
            text("UPDATE locations SET name = :name WHERE image = :image"),
            {"name": NFC, "image": second.number},
        )
        config.attributes["connection"] = connection
        (step,) = (
            script
            for script in ScriptDirectory.from_config(config).walk_revisions()
            if script.doc == "Names that look the same are found as one"
        )
        command.stamp(config, str(step.down_revision))
        command.upgrade(config, step.revision)
        command.stamp(config, "head")
    engine.dispose()
    vfs = Vfs(open_catalog(settings))
    assert image_at(vfs, f"/file/{NFD}").id == first.id
    assert image_at(vfs, f"/file/{NFC}").id == second.id
    assert folder_at(vfs, f"/other/{NFC}").name == NFD
    remove(vfs, f"/file/{NFC}", ADMIN)
    assert image_at(vfs, f"/file/{NFC}").id == first.id
    with pytest.raises(AlreadyExists):
        vfs.create(vfs.place(f"/file/{NFC}"), ALICE)
    vfs.close()


def test_an_image_put_before_is_found_by_either_form(vfs: Vfs) -> None:
    """Whatever made the row."""
    image = put_as_before(vfs, f"/file/{NFD}")
    assert image_at(vfs, f"/file/{NFC}").id == image.id
