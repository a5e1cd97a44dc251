"""`imagefs init` where something has been before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalog.cli.console.exit_codes import OK, TRY_AGAIN
from catalog.cli.program import imagefs as program
from tests.kit.configuration import configure

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command on a catalog with one image in the store `file`."""
    config = configure(tmp_path, sections="[cache]\nsize = 0")

    def run(*arguments: str, code: int = OK) -> Result:
        data = b"some data" * 100
        result = CliRunner().invoke(program, ["--config", str(config), *arguments], input=data)
        assert result.exit_code == code, result.output
        return result

    run("init")
    run("add", "-", "--name", "a")
    return run


def test_init_where_a_store_is_not_mounted(run: Run, tmp_path: Path) -> None:
    """The empty folder beneath is not called good, whatever has become of it."""
    store, away = tmp_path / "file", tmp_path / "away"
    store.rename(away)
    for mount_point in ("empty", "missing"):
        if mount_point == "empty":
            store.mkdir()
        told = run("init", code=TRY_AGAIN).stderr
        assert "the catalog has images there (1)" in told
        shutil.rmtree(store, ignore_errors=True)
        assert not (store / ".imagefs-store").exists()
    shutil.rmtree(tmp_path / "other")
    run("init", code=TRY_AGAIN)
    assert (tmp_path / "other/.imagefs-store").exists()
    shutil.rmtree(store, ignore_errors=True)
    away.rename(store)
    run("init")
    run("export", "/file/a", str(tmp_path / "exported"))


def test_init_where_a_store_was_emptied(run: Run, tmp_path: Path) -> None:
    """Who says so gets a new store."""
    shutil.rmtree(tmp_path / "file")
    run("init", "--emptied", "file")
    assert (tmp_path / "file/.imagefs-store").exists()


def test_init_after_the_database_was_lost(run: Run, tmp_path: Path) -> None:
    """It tells what it finds in a store, and how to get it back; that works."""
    for file in tmp_path.glob("catalog.db*"):
        file.unlink()
    told = run("init").stderr
    assert "store file holds images of a catalog that is lost (1)" in told
    assert "imagefs adopt file --all" in told
    run("adopt", "file", "--all")
    assert run("init").stderr == ""
    assert "raw" in run("list").stdout


def test_init_beside_the_journal_of_a_lost_database(run: Run, tmp_path: Path) -> None:
    """SQLite would empty it, and it may hold what is newest."""
    database, journal = tmp_path / "catalog.db", tmp_path / "catalog.db-wal"
    database.unlink()
    journal.write_bytes(b"what is newest")
    assert "is still there" in run("init", code=TRY_AGAIN).stderr
    assert journal.read_bytes() == b"what is newest"
    assert not database.exists()
