"""One store that is misconfigured, or gone for good, stops neither the others nor the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalog.cli.program import imagefs as program
from catalog.copies.recovery import recover
from catalog.errors import Conflict, NotFound, StoreRefused
from catalog.model.access import ADMIN
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load_usable
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from catalog.upkeep.lost import forget_store, gone_stores
from catalog.upkeep.scrub import give_up_abandoned, scrub
from tests.kit.catalog import (
    ALICE,
    begin,
    image_at,
    keys_in,
    link,
    names_in,
    new_catalog,
    put,
    read,
    remove,
    rename,
    settings_at,
)

Run = Callable[..., Result]


def sections(tmp_path: Path, *names: str, more: str = "") -> Path:
    """A configuration of folders, and whatever `more` says."""
    path = tmp_path / "imagefs.toml"
    text = f'[catalog]\nurl = "sqlite:///{tmp_path}/catalog.db"\nstaging = "{tmp_path}/staging"\n'
    text += "scrub_time = 0\n[cache]\nsize = 0\n"
    for name in names:
        text += f'[stores.{name}]\ntype = "filesystem"\npath = "{tmp_path}/{name}"\n'
    path.write_text(text + more)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command with that configuration."""

    def run(*arguments: str, code: int = 0, stdin: bytes | None = None) -> Result:
        config = str(tmp_path / "imagefs.toml")
        result = CliRunner().invoke(program, ["--config", config, *arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output + result.stderr
        return result

    return run


# A mistake in one section

MISTAKES = {
    "misspelt": ('type = "s3"\nendpoint = "https://s3.example.org"\nbuckett = "images"\n'
                 'access_key = { env = "A" }\nsecret_key = { env = "B" }\n',
                 "stores.bad.buckett: unknown key, did you mean bucket?"),
    "no type": ('path = "/srv"\n', "stores.bad.type: should be one of"),
    "type of a driver's own": ('type = "filesystem"\npath = "relative"\n', "stores.bad.path"),
    "replicas": ('type = "filesystem"\npath = "/srv/x"\nreplicas = ["nowhere"]\n',
                 "stores.bad.replicas: should be some of file"),
}  # fmt: skip


@pytest.mark.expect_log("stores.bad")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_breaks_one_store(tmp_path: Path, run: Run, mistake: str) -> None:
    """The others take and give images; the one is there, and each use of it says why."""
    section, told = MISTAKES[mistake]
    sections(tmp_path, "file")
    run("init")
    config = sections(tmp_path, "file", more=f"[stores.bad]\n{section}")
    vfs = Vfs(open_catalog(load_usable(config)))
    put(vfs, "/file/a", b"data")
    assert read(vfs, "/file/a") == b"data"
    assert "bad" in names_in(vfs, "/")
    for attempt in (
        lambda: vfs.create(vfs.place("/bad/a"), ALICE),
        lambda: link(vfs, "/file/a", "/bad/a"),
        lambda: vfs.usage("bad"),
    ):
        with pytest.raises(StoreRefused) as caught:
            attempt()
        assert told in str(caught.value)
    assert recover(vfs.catalog) == []
    assert list(scrub(vfs.catalog)) == []
    vfs.close()
    assert "/file/a" in run("list").output
    assert told in run("store", "list").output
    assert told in run("config", "check", code=2).stderr
    assert told in run("doctor", code=1).output


@pytest.mark.expect_log("stores.other.pathh")
def test_images_of_a_broken_store_are_kept(tmp_path: Path, run: Run) -> None:
    """What is read from a store with a mistake is refused, and there again once it is mended."""
    config = sections(tmp_path, "file", "other")
    run("init")
    vfs = Vfs(open_catalog(load_usable(config)))
    put(vfs, "/other/a", b"data")
    vfs.close()
    sections(tmp_path, "file", more='[stores.other]\ntype = "filesystem"\npathh = "/x"\n')
    run("delete", "/other/a")
    (kept,) = run("scrub", code=1).output.splitlines()
    assert "pathh" in kept
    sections(tmp_path, "file", "other")
    run("restore", "/other/.trash/a")
    vfs = Vfs(open_catalog(load_usable(config)))
    assert read(vfs, "/other/a") == b"data"
    vfs.close()


# A store that was taken out of the configuration


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """As usual, and every scrub empties the trash."""
    return settings_at(tmp_path, scrub_time=0)


@pytest.fixture
def reduced(settings: Settings) -> Settings:
    """The same without the store `other`."""
    stores = {name: each for name, each in settings.stores.items() if name != "other"}
    return Settings("test", settings.catalog, stores)


@pytest.fixture
def vfs(settings: Settings, reduced: Settings) -> Iterator[Vfs]:
    """/file/a and /other/a are one image; /other/only, and an upload, are only there."""
    full = Vfs(new_catalog(settings))
    put(full, "/file/a", b"data")
    link(full, "/file/a", "/other/a")
    put(full, "/other/only", b"only")
    full.catalog.close()
    found = Vfs(open_catalog(reduced))
    yield found
    found.catalog.close()


def test_rm_of_the_copy_that_is_here_works(vfs: Vfs, settings: Settings) -> None:
    """It goes to the trash, whole: the other copy may never come back."""
    remove(vfs, "/file/a")
    assert names_in(vfs, "/file") == set()
    (kept,) = scrub(vfs.catalog)
    assert "other: no such store is configured" in str(kept.problem)
    rename(vfs, "/file/.trash/a", "/file/a")
    assert read(vfs, "/file/a") == b"data"
    remove(vfs, "/file/a")
    back = Vfs(open_catalog(settings))
    assert names_in(back, "/other") == {"only"}
    (gone,) = scrub(back.catalog)
    assert gone.problem is None
    assert (keys_in(back), len(keys_in(back, "other"))) == (set(), 1)
    back.catalog.close()


def test_a_replaced_image_is_in_the_trash_whole(vfs: Vfs) -> None:
    """A name in a store that is gone is no name anybody has."""
    put(vfs, "/file/new", b"new")
    rename(vfs, "/file/new", "/file/a")
    assert read(vfs, "/file/a") == b"new"
    assert read(vfs, "/file/.trash/a", ADMIN) == b"data"


def test_what_is_only_there_is_told_and_kept(vfs: Vfs) -> None:
    """Nothing is concluded from a store's absence."""
    (gone,) = gone_stores(vfs.catalog)
    assert (gone.name, gone.images, gone.only_there) == ("other", 2, 1)
    with pytest.raises(Conflict, match="--force"):
        forget_store(vfs.catalog, "other", ADMIN, force=False)
    with pytest.raises(Conflict, match="configuration"):
        forget_store(vfs.catalog, "file", ADMIN, force=True)
    with pytest.raises(NotFound):
        forget_store(vfs.catalog, "nowhere", ADMIN, force=True)
    assert len(gone_stores(vfs.catalog)) == 1


def test_a_store_is_forgotten_for_good(vfs: Vfs, tmp_path: Path) -> None:
    """With what is only there; copies elsewhere stay, and its data is left alone."""
    forget_store(vfs.catalog, "other", ADMIN, force=True)
    assert gone_stores(vfs.catalog) == []
    assert vfs.catalog.details(image_at(vfs, "/file/a").number).stores == ("file",)
    assert read(vfs, "/file/a") == b"data"
    assert list(fsck(vfs.catalog, repair=False)) == []
    assert len([each for each in (tmp_path / "other").iterdir() if each.is_file()]) == 3
    remove(vfs, "/file/a")
    (done,) = scrub(vfs.catalog)
    assert done.problem is None


def test_a_killed_upload_of_a_gone_store_stops_nothing(
    settings: Settings, reduced: Settings
) -> None:
    """Its temporary name is in no folder that is shown."""
    full = Vfs(new_catalog(settings))
    begin(full, "/other/.a.part", b"x").cancel("its reason")
    with full.catalog.write() as repository:
        repository.connection.exec_driver_sql(
            "UPDATE images SET updated_at = '2020-01-01 00:00:00'"
        )
    full.catalog.close()
    found = Vfs(open_catalog(reduced))
    give_up_abandoned(found.catalog)
    found.catalog.close()


@pytest.mark.parametrize("by", ["path", "id"])
def test_force_deletes_what_is_in_a_gone_store(tmp_path: Path, run: Run, by: str) -> None:
    """Listed by its store's path, deleted by path or id, and what stays there is told."""
    config = sections(tmp_path, "file", "other")
    run("init")
    vfs = Vfs(open_catalog(load_usable(config)))
    only = put(vfs, "/other/only", b"only")
    put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    vfs.close()
    sections(tmp_path, "file")
    assert "not configured; 1 images are nowhere else" in run("store", "list").output
    listed = run("list", "/other").output
    assert "/other/only" in listed
    assert "/other/a" in listed
    assert "--force" in run("delete", only.id, code=1).stderr
    told = run("delete", "--force", only.id if by == "id" else "/other/only").stderr
    assert f"{tmp_path}/other/{only.id} is left in store other" in told
    run("show", only.id, code=4)
    run("delete", "--force", "/other/a")
    assert "other" not in run("store", "list").output
    assert "/file/a" in run("list").output


def test_force_deletes_what_a_store_refuses(tmp_path: Path, run: Run) -> None:
    """Of a store that is away; scrub does the same for all that is in the trash."""
    config = sections(tmp_path, "file", "other")
    run("init")
    vfs = Vfs(open_catalog(load_usable(config)))
    for name in ("a", "b"):
        put(vfs, f"/other/{name}", b"data")
    vfs.close()
    (tmp_path / "other").rename(tmp_path / "unmounted")
    assert "is left in store other" in run("delete", "--force", "/other/a").stderr
    run("delete", "/other/b")
    run("scrub", code=5)
    assert "is left in store other" in run("scrub", "--force").stderr
    assert run("list", "--deleted").output.count("\n") == 1
