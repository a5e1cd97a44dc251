"""Which programs may use which schema: two versions run side by side during an upgrade."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.catalog import Catalog
from catalog.errors import SchemaTooNew
from catalog.repository.engines.opening import open_backend
from catalog.repository.schema import SCHEMA, statements
from catalog.service.bootstrap import open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.catalog.repository.older import revisions
from tests.kit.catalog import image_at, make_folder, names_in, put, remove, rename

_NEXT = "9999"
_ADDS = re.compile(
    r"CREATE (TABLE|INDEX|UNIQUE INDEX) |ALTER TABLE \S+ ADD COLUMN (?!.* NOT NULL)"
    r"|(INSERT INTO|DELETE FROM|UPDATE) |--|BEGIN$|COMMIT$"
)
"""What a migration may do beside programs of the version before."""


def _upgrade(catalog: Catalog, oldest: str) -> None:
    """As the next version's program would."""
    with catalog.write() as repository:
        for statement in (
            "ALTER TABLE images ADD COLUMN flavour VARCHAR(64)",
            "ALTER TABLE locations ADD COLUMN weight INTEGER",
            "CREATE TABLE flavours (name VARCHAR(64) PRIMARY KEY)",
            f"UPDATE schema_floor SET oldest = '{oldest}'",
            f"UPDATE alembic_version SET version_num = '{_NEXT}'",
        ):
            repository.connection.execute(text(statement))


def test_the_next_version_s_schema_can_be_used(catalog: Catalog, settings: Settings) -> None:
    """Both by who has it open during the upgrade, and by who opens it later."""
    before = Vfs(catalog)
    put(before, "/file/a")
    _upgrade(catalog, SCHEMA)
    put(before, "/file/b")
    later = Vfs(open_catalog(settings))
    for vfs, name in ((before, "c"), (later, "d")):
        make_folder(vfs, f"/file/{name}")
        put(vfs, f"/file/{name}/new")
        rename(vfs, f"/file/{name}/new", f"/file/{name}/newer")
    remove(later, "/file/a")
    assert names_in(before, "/file") == names_in(later, "/file") == {"b", "c", "d"}
    assert image_at(before, "/file/d/newer") == image_at(later, "/file/d/newer")
    later.close()


def test_one_that_breaks_older_programs_is_refused(catalog: Catalog, settings: Settings) -> None:
    """It says so in `schema_floor`."""
    _upgrade(catalog, _NEXT)
    with pytest.raises(SchemaTooNew, match=_NEXT):
        open_catalog(settings)


def test_the_floor_is_one_that_this_program_knows(catalog: Catalog) -> None:
    """A migration that sets another one shuts its own program out."""
    with catalog.read() as repository:
        found = repository.connection.execute(text("SELECT oldest FROM schema_floor"))
        assert found.scalar_one() in revisions()


@pytest.mark.parametrize("revision", revisions()[revisions().index("0010") + 1 :] or ["none yet"])
def test_a_migration_only_adds(tmp_path: Path, revision: str) -> None:
    """Or it sets the floor to its own revision, and so keeps older programs out."""
    backend = open_backend(f"sqlite:///{tmp_path / 'catalog.db'}", create=True)
    check = [(step, sql) for step, sql in statements(backend, None) if step.revision == revision]
    backend.close()
    for step, sql in check:
        lines = [each.strip() for each in re.sub(r"--.*", "", sql).split(";") if each.strip()]
        breaks = f"UPDATE schema_floor SET oldest = '{step.revision}'" in lines
        others = [each for each in lines if not _ADDS.match(" ".join(each.split()))]
        assert breaks or not others


def test_the_rule_finds_what_breaks() -> None:
    """The pattern above."""
    for allowed in ("CREATE TABLE t (a INTEGER NOT NULL)", "ALTER TABLE t ADD COLUMN a INTEGER"):
        assert _ADDS.match(allowed)
    for breaks in (
        "ALTER TABLE t ADD COLUMN a INTEGER NOT NULL",
        "ALTER TABLE t DROP COLUMN a",
        "DROP TABLE t",
        "ALTER TABLE t RENAME TO u",
    ):
        assert not _ADDS.match(breaks)
