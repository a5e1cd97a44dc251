"""The setting `replicas`: from the file to the copy; and what readers make of damaged copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.copies.recovery import recover
from catalog.errors import Conflict, DataDamaged, InvalidSettings
from catalog.model.access import ADMIN
from catalog.model.clock import now
from catalog.model.image import CHUNK_SIZE
from catalog.process import Process, this_process
from catalog.repository.copies import SETTLE
from catalog.rules import copies
from catalog.service.bootstrap import make_catalog
from catalog.service.configuration import describe, load
from catalog.tree.vfs import Vfs
from catalog.upkeep.replicator import Replicator
from catalog.upkeep.store_check import note
from catalog.upkeep.verify import verify
from tests.kit.catalog import link, names_in, put, read, remove, some_bytes
from tests.kit.damage import overwrite

DATA = some_bytes(2 * CHUNK_SIZE + 77)

CONFIG = """
[catalog]
url = "sqlite:///{0}/catalog.db"
staging = "{0}/staging"
default_store = "file"
[stores.file]
type = "filesystem"
path = "{0}/file"
replicas = {1}
[stores.other]
type = "filesystem"
path = "{0}/other"
[stores.memory]
type = "memory"
[stores.web]
type = "http"
"""


def config(path: Path, replicas: str) -> Path:
    """A configuration in which the store `file` has those replicas."""
    file = path / "imagefs.toml"
    file.write_text(CONFIG.format(path, replicas))
    return file


def test_the_setting_is_of_no_driver(tmp_path: Path) -> None:
    """Any type of store takes it; `config show` tells it."""
    settings = load(config(tmp_path, '["other", "memory"]'))
    assert settings.replicas == {"file": ("other", "memory")}
    assert describe(settings)["stores"]["file"]["replicas"] == ["other", "memory"]
    assert "replicas" not in describe(settings)["stores"]["other"]


@pytest.mark.parametrize(
    "replicas",
    ['["file"]', '["nonsense"]', '["web"]', '["other", "other"]', '"other"', "[1]"],
)
def test_a_replica_goes_to_another_store_that_takes_data(tmp_path: Path, replicas: str) -> None:
    """Anything else is refused at the start, and the message names the key."""
    with pytest.raises(InvalidSettings) as caught:
        load(config(tmp_path, replicas))
    assert "stores.file.replicas" in str(caught.value)


def test_an_unknown_key_of_a_store_is_told_with_this_one(tmp_path: Path) -> None:
    """Among those that are allowed."""
    file = config(tmp_path, "[]")
    file.write_text(file.read_text().replace("replicas", "replica"))
    with pytest.raises(InvalidSettings) as caught:
        load(file)
    assert "replicas, type" in str(caught.value)


def test_an_upload_is_copied(tmp_path: Path) -> None:
    """Not at once, and only from the store that says so; the wish survives a restart."""
    settings = load(config(tmp_path, '["other", "memory"]'))
    catalog = make_catalog(settings)
    vfs = Vfs(catalog)
    image = put(vfs, "/file/a", DATA)
    put(vfs, "/other/b", DATA)
    Replicator(catalog).work()
    assert names_in(vfs, "/other") == {"b"}
    catalog.close()
    catalog = make_catalog(settings)
    vfs = Vfs(catalog)
    with catalog.write() as repository:
        wanted = repository.due_copies(now() + 2 * SETTLE)
        for one in wanted:
            repository.postpone_copy(one, 0, now())
    assert {(one.image, one.store) for one in wanted} == {
        (image.number, "other"),
        (image.number, "memory"),
    }
    Replicator(catalog).work()
    assert catalog.details(image.number).stores == ("file", "memory", "other")
    assert read(vfs, "/file/a") == DATA
    catalog.close()


def test_a_marked_copy_is_not_read_while_there_is_another(vfs: Vfs, tmp_path: Path) -> None:
    """Though it is a local file; and not removed against the better one."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    overwrite(tmp_path / "file" / image.id, 0, b"\0\1\2")
    list(verify(vfs.catalog, image, ADMIN))
    assert read(vfs, "/file/a") == DATA
    with pytest.raises(Conflict):
        remove(vfs, "/other/a")
    remove(vfs, "/file/a")
    assert read(vfs, "/other/a") == DATA


@pytest.mark.expect_log("is damaged")
def test_a_marked_copy_that_is_the_only_one_is_read_where_it_is_good(
    vfs: Vfs, tmp_path: Path
) -> None:
    """And its bad bytes never reach a reader."""
    image = put(vfs, "/file/a", DATA)
    overwrite(tmp_path / "file" / image.id, 0, b"\0\1\2")
    list(verify(vfs.catalog, image, ADMIN))
    reader = vfs.open(image.number, ADMIN)
    assert reader.read_at(CHUNK_SIZE, 10) == DATA[CHUNK_SIZE : CHUNK_SIZE + 10]
    with pytest.raises(DataDamaged):
        reader.read_at(0, 10)
    reader.close()


def test_a_local_copy_of_another_size_is_not_read(vfs: Vfs, tmp_path: Path) -> None:
    """The other copy is."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    stored = tmp_path / "file" / image.id
    stored.chmod(0o600)
    stored.write_bytes(DATA[:CHUNK_SIZE])
    assert read(vfs, "/file/a") == DATA


@pytest.mark.expect_log("is damaged")
def test_what_a_reader_finds_is_marked(vfs: Vfs) -> None:
    """A remote copy's bad chunk comes from the other copy, and verify need not find it."""
    image = put(vfs, "/memory/a", DATA)
    link(vfs, "/memory/a", "/file/a")
    memory = vfs.catalog.store("memory")
    memory.delete(memory.url_of(image.id))
    writer = memory.writer(image.id)
    writer.write(b"\0" + DATA[1:])
    writer.commit()
    with vfs.catalog.write() as repository:
        (first, second) = repository.locations_of(image.number)
        repository.mark_damaged(second.number)
    assert read(vfs, "/memory/a") == DATA
    with vfs.catalog.read() as repository:
        assert repository.damaged(image.number) == {first.number, second.number}


def test_a_copy_that_was_cut_off_is_told(vfs: Vfs) -> None:
    """Its message does not say for ever that it goes on; the next copy clears it."""
    image = put(vfs, "/file/a", DATA)
    here = this_process()
    dead = Process(here.host, here.boot, here.pid, here.started + 1)
    copies.start_copy(vfs.catalog, image.number, "other", dead)
    note(vfs.catalog, image.number, "copying to store other: 40 %")
    recover(vfs.catalog)
    told = vfs.catalog.image(image.number).message
    assert told == "copying to store other failed: it was cut off, and goes on if repeated"
    link(vfs, "/file/a", "/other/a")
    assert vfs.catalog.image(image.number).message == ""
