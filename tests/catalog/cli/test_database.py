"""`imagefs dump`, `load` and `db`, as commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.repository.tables import OF_PROCESSES, metadata
from catalog.service.configuration import load
from tests.catalog.cli.command import Run, paths, runner
from tests.catalog.repository.older import take_back
from tests.kit.configuration import configure

pytestmark = pytest.mark.sqlite


def test_from_one_catalog_to_another(run: Run, image: str, tmp_path: Path) -> None:
    """By way of a file, which only its owner reads, or of a pipe."""
    file = tmp_path / "dump"
    assert "rows are written" in run("dump", str(file)).stderr
    assert file.stat().st_mode & 0o777 == 0o600
    piped = run("dump", "-").stdout_bytes
    assert piped.count(b"\n") == file.read_bytes().count(b"\n")
    for name, source, stdin in (("from file", str(file), None), ("from pipe", "-", piped)):
        (tmp_path / name).mkdir()
        other = runner(configure(tmp_path / name))
        assert "rows are loaded" in other("load", source, stdin=stdin).stderr
        assert paths(other) == paths(run) == ["/file/a"]
        other("load", str(file), code=1)


def test_a_dump_that_fails_leaves_no_file(bare: Run, tmp_path: Path) -> None:
    """Neither under its name nor beside it."""
    bare("dump", str(tmp_path / "dump"), code=10)
    assert list(tmp_path.glob("dump*")) == []


def test_the_schema_is_checked_and_upgraded(run: Run, config: Path) -> None:
    """An older SQLite file by whatever opens it, so that there is nothing left to do."""
    assert run("db", "check").stdout.splitlines()[1] == "ok    database: is sound"
    take_back(load(config).catalog.url, "0001")
    assert "run 'imagefs db upgrade'" in run("db", "check", code=15).stdout
    assert "CREATE TABLE users" in run("db", "upgrade", "--dry-run").stdout
    run("db", "check", code=15)
    assert "0002: Users, members" in run("db", "upgrade").stdout
    assert run("db", "upgrade").stdout == "the schema was up to date\n"
    assert run("db", "upgrade", "--dry-run").stdout == ""
    run("db", "check")


def test_what_is_no_catalog_is_not_upgraded(bare: Run) -> None:
    """`imagefs init` makes one."""
    for command in ("check", "upgrade"):
        bare("db", command, code=10)


def test_rights_in_a_file_are_the_file_s(run: Run) -> None:
    """SQLite has no users."""
    assert "SQLite has no users" in run("db", "grants", "reader", code=1).stderr


@pytest.mark.parametrize(
    ("kind", "table", "user"),
    [
        ("postgresql", "images", '"imagefs"'),
        ("mariadb", "`catalog`.images", "`imagefs`@'%'"),
    ],
)
def test_rights_in_a_server(
    bare: Run, config: Path, tmp_path: Path, kind: str, table: str, user: str
) -> None:
    """A reader writes nothing but what it is; only a server sees the hashes of passwords."""
    url = load(config).catalog.url
    config.write_text(config.read_text().replace(url, f"{kind}://root@127.0.0.1:1/catalog"))
    told = {
        role: bare("db", "grants", role, "--user", "imagefs").stdout.splitlines()
        for role in ("reader", "uploader", "server")
    }
    assert f"GRANT SELECT ON {table} TO {user};" in told["reader"]
    for role in ("uploader", "server"):
        assert f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {user};" in told[role]
    tables = {table.name for table in metadata.sorted_tables}
    for role, rights in told.items():
        granted = {name for name in tables if any(f"{name} TO" in right for right in rights)}
        assert tables - granted == (set() if role == "server" else {"users"})
        assert not any("ALL" in right or "GRANT OPTION" in right for right in rights)
    writes = {right for right in told["reader"] if "INSERT" in right}
    assert writes == {
        right
        for right in told["reader"]
        if any(f"{name} TO" in right for name in {*OF_PROCESSES, "last_uses"} - {"uploads"})
    }
