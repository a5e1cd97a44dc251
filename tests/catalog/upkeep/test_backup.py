"""`imagefs backup`, and restoring what it wrote."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from catalog.appearing import appearing
from catalog.errors import CatalogDamaged, InvalidValue, NoCatalog, NotSupported
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from catalog.upkeep.backup import backup
from tests.kit.catalog import names_in, put, read
from tests.kit.configuration import configure

pytestmark = pytest.mark.sqlite


def images_in(file: Path) -> int:
    """How many images a database file holds by itself; it must be sound."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (count,) = database.execute("SELECT count(*) FROM images").fetchone()
        return int(count)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The database of the tree `vfs`."""
    return f"sqlite:///{tmp_path / 'catalog.db'}"


def test_a_backup_holds_what_was_committed(vfs: Vfs, url: str, tmp_path: Path) -> None:
    """It is one file, for its owner alone, and complete while the catalog is open."""
    for number in range(5):
        put(vfs, f"/file/{number}")
    copy = tmp_path / "copy.db"
    backup(url, copy)
    assert images_in(copy) == 5
    assert copy.stat().st_mode & 0o777 == 0o600
    put(vfs, "/file/more")
    backup(url, copy)
    assert images_in(copy) == 6
    assert {each.name for each in tmp_path.glob("copy*")} == {"copy.db"}


def test_a_backup_while_others_write(vfs: Vfs, url: str, tmp_path: Path) -> None:
    """Each one is sound, and holds at least what was there when it began."""
    stop, done = threading.Event(), list[int]()

    def write() -> None:
        while not stop.is_set():
            put(vfs, f"/file/{len(done)}")
            done.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            before = len(done)
            copy = tmp_path / f"{number}.db"
            backup(url, copy)
            assert images_in(copy) >= before
    finally:
        stop.set()
        writer.join()


def test_restoring(tmp_path: Path) -> None:
    """Put in the database's place, without its journal, it is the catalog as it was."""
    settings = load(configure(tmp_path, sections="[cache]\nsize = 0"))
    vfs = Vfs(make_catalog(settings))
    put(vfs, "/file/a", b"of then")
    backup(settings.catalog.url, tmp_path / "copy.db")
    put(vfs, "/file/b")
    vfs.close()
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy.db", tmp_path / "catalog.db")
    vfs = Vfs(open_catalog(settings))
    assert names_in(vfs, "/file") == {"a"}
    assert read(vfs, "/file/a") == b"of then"
    vfs.close()


def test_a_damaged_database_is_no_backup(vfs: Vfs, url: str, tmp_path: Path) -> None:
    """An older good one stays."""
    put(vfs, "/file/a")
    copy = tmp_path / "copy.db"
    backup(url, copy)
    before = copy.read_bytes()
    vfs.close()
    file = tmp_path / "catalog.db"
    data = bytearray(file.read_bytes())
    for at in range(4096, len(data), 8192):
        data[at : at + 4096] = bytes(4096)
    file.write_bytes(data)
    with pytest.raises(CatalogDamaged):
        backup(url, copy)
    assert copy.read_bytes() == before
    assert {each.name for each in tmp_path.glob("copy*")} == {"copy.db"}


def test_where_no_backup_goes(vfs: Vfs, url: str, tmp_path: Path) -> None:
    """Not over the catalog itself, by whatever name, nor over what is no file."""
    (tmp_path / "link").symlink_to(tmp_path / "catalog.db")
    for target in (tmp_path / "catalog.db", tmp_path / "link", tmp_path, Path("/dev/null")):
        with pytest.raises(InvalidValue):
            backup(url, target)
    with pytest.raises(FileNotFoundError):
        backup(url, tmp_path / "missing/copy.db")
    with pytest.raises(NoCatalog):
        backup(f"sqlite:///{tmp_path}/none.db", tmp_path / "copy.db")
    put(vfs, "/file/a")


@pytest.mark.parametrize(
    ("url", "tool"), [("postgresql://h/db", "pg_dump"), ("mysql://h/db", "mysqldump")]
)
def test_a_server_has_its_own(tmp_path: Path, url: str, tool: str) -> None:
    """The line names its tool."""
    with pytest.raises(NotSupported, match=tool):
        backup(url, tmp_path / "copy")


def test_the_command(vfs: Vfs, tmp_path: Path) -> None:
    """As it is called from cron, in whatever folder."""
    put(vfs, "/file/a")
    config = configure(tmp_path)
    command = [sys.executable, "-m", "catalog.cli", "--config", str(config), "backup", "b.db"]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    assert images_in(tmp_path / "b.db") == 1


def test_a_new_catalog_is_in_its_main_file(vfs: Vfs, tmp_path: Path) -> None:
    """A plain copy of it is a catalog, if an empty one."""
    shutil.copy(tmp_path / "catalog.db", tmp_path / "copy.db")
    assert images_in(tmp_path / "copy.db") == 0
    put(vfs, "/file/a")
    vfs.catalog.checkpoint()
    shutil.copy(tmp_path / "catalog.db", tmp_path / "copy.db")
    assert images_in(tmp_path / "copy.db") == 1


def test_a_file_that_cannot_appear_is_named(tmp_path: Path) -> None:
    """By the name that was given; nothing is left, whatever its length in bytes."""
    target = tmp_path / "folder" / "copy"
    with pytest.raises(FileNotFoundError) as caught, appearing(target) as part:
        part.touch()
    assert caught.value.filename == str(target)
    with appearing(tmp_path / ("ü" * 127)) as part:
        part.touch()
    assert [each.name for each in tmp_path.iterdir()] == ["ü" * 127]
