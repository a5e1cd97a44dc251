"""Changing, deleting and restoring images."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from catalog.model.access import ADMIN
from catalog.tree.vfs import Vfs
from tests.catalog.cli.command import DATA, Run, paths, shown
from tests.kit.damage import stored


def test_set_and_unset(run: Run, image: str) -> None:
    """Fields and properties, all or none."""
    run("set", image, "property.size=large", code=2)  # a field's name
    run("set", image, "min_ram=512", "hw_disk_bus=virtio", "property.extent=large")
    found = shown(run, image)
    assert found["min_ram"] == 512
    assert found["properties"] == {"hw_disk_bus": "virtio", "extent": "large"}
    run("set", image, "min_ram=1", "visibility=nonsense", code=2)
    run("set", image, "min_ram=1", "size=1", code=12)
    assert shown(run, image)["min_ram"] == 512
    run("unset", image, "hw_disk_bus", "missing", code=4)
    run("unset", image, "min_ram", code=2)
    run("unset", image, "hw_disk_bus", "property.extent")
    assert shown(run, image)["properties"] == {}


def test_tags(run: Run, image: str) -> None:
    """Added to those that are there, and removed one by one."""
    run("tag", image, "b", "a")
    run("tag", image, "c")
    assert shown(run, image)["tags"] == ["a", "b", "c"]
    run("tag", image, "--remove", "b", "x", code=4)
    run("tag", image, "--remove", "b")
    assert shown(run, image)["tags"] == ["a", "c"]


def test_deactivated_and_back(run: Run, image: str, vfs: Vfs) -> None:
    """The status follows; an image without data can be neither."""
    run("deactivate", image)
    assert shown(run, image)["status"] == "deactivated"
    run("reactivate", image)
    assert shown(run, image)["status"] == "active"
    vfs.create(vfs.place("/file/queued"), ADMIN)
    assert "queued" in run("deactivate", "/file/queued", code=1).stderr


def test_the_trash_tells_when_by_whom_and_until_when(run: Run, image: str) -> None:
    """And each image's id, as several may have had one name."""
    run("delete", image)
    row = run("list", "--deleted").stdout.splitlines()[1]
    assert row.startswith(image)
    assert row.endswith("/file/.trash/a")
    assert " root " in row
    (found,) = json.loads(run("list", "--deleted", "--json").stdout)
    deleted, until = (
        datetime.fromisoformat(found[name]) for name in ("deleted_at", "deleted_until")
    )
    assert until - deleted == timedelta(seconds=3600)
    assert found["deleted_by"] == "root"


def test_deleted_and_restored(run: Run, image: str, vfs: Vfs) -> None:
    """It comes back where it was with what it had; a taken name asks for another."""
    run("set", image, "p=1")
    run("delete", "/file/a")
    assert paths(run, "--deleted") == ["/file/.trash/a"]
    run("delete", image, code=1)
    run("add", "-", "--name", "a", stdin=DATA)
    run("restore", image, code=1)
    assert run("restore", image, "--to", "/file/b").stdout == f"{image}  /file/b\n"
    assert shown(run, "/file/b")["properties"] == {"p": "1"}
    run("restore", image, code=4)


def test_restored_into_its_folder_or_the_store(run: Run, vfs: Vfs) -> None:
    """When the folder is gone the image returns to its store."""
    vfs.make_folder(vfs.place("/file/folder"), ADMIN)
    run("add", "-", "--name", "folder/a", stdin=DATA)
    run("delete", "file/folder/a")
    assert json.loads(run("restore", "file/.trash/a", "--json").stdout)["path"] == "/file/folder/a"
    run("delete", "file/folder/a")
    vfs.remove_folder(vfs.place("/file/folder"), ADMIN)
    run("restore", "file/.trash/a")
    assert paths(run) == ["/file/a"]


def test_delete_now(run: Run, image: str, vfs: Vfs) -> None:
    """The data is gone at once, from the tree or from the trash."""
    with vfs.catalog.read() as repository:
        inside = stored(vfs.catalog, repository.image_by_id(image), "file")
    run("delete", "--now", image)
    assert not inside.exists()
    run("show", image, code=4)
    run("add", "-", "--name", "b", stdin=DATA)
    run("delete", "file/b")
    run("delete", "--now", "file/.trash/b")
    assert paths(run, "--deleted") == []


def test_protected_image_keeps_every_copy(run: Run, image: str) -> None:
    """A deletion that must fail does not begin with the other copies."""
    run("replicate", image, "other")
    run("set", image, "protected=true")
    assert "protected=false" in run("delete", image, code=12).stderr
    assert paths(run) == ["/file/a", "/other/a"]
