"""A database file that was damaged: told in one line, and never taken for sound."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalog.cli.console.exit_codes import DAMAGED, EXIT_CODES, FAILURE, OK
from catalog.cli.program import imagefs as program
from catalog.errors import CatalogDamaged
from catalog.rules import fields
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, make_folder, new_catalog, put, remove, some_bytes
from tests.kit.configuration import configure

pytestmark = pytest.mark.sqlite

PAGE = 4096

COMMANDS = (
    ("list", "/"),
    ("list", "--deleted", "--long"),
    ("list", "--json", "--sort", "size"),
    ("show", "/file/2.raw"),
    ("store", "list"),
    ("verify",),
    ("scrub", "--dry-run"),
    ("set", "/file/3.raw", "os_distro=debian"),
    ("delete", "/file/4.raw"),
    ("user", "list"),
    ("scrub",),
    ("init",),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog with images, folders, properties and a trash, and nothing in a journal."""
    path = tmp_path_factory.mktemp("sound")
    vfs = Vfs(new_catalog(load(configure(path, sections="[cache]\nsize = 0"))))
    for number in range(30):
        image = put(vfs, f"/file/{number}.raw", some_bytes(10_000, number))
        values = {f"property.p{each}": "v" * 200 for each in range(5)}
        fields.set_attributes(vfs.catalog, image.number, values, ALICE)
    make_folder(vfs, "/file/folder")
    make_folder(vfs, "/file/folder/below")
    remove(vfs, "/file/0.raw")
    vfs.close()
    with closing(sqlite3.connect(path / "catalog.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    """A copy of that catalog, to be damaged."""
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy)
    configure(copy, sections="[cache]\nsize = 0")
    return copy


def imagefs(path: Path, *arguments: str) -> Result:
    """Run the command on a catalog; whatever is wrong with it, there is no traceback."""
    config = ("--config", str(path / "imagefs.toml"))
    result = CliRunner().invoke(program, [*config, *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in {OK, FAILURE, 3, *EXIT_CODES.values()}
    assert all(line.startswith("imagefs: ") for line in result.stderr.splitlines())
    return result


def is_sound(path: Path) -> bool:
    """What SQLite itself says."""
    try:
        with closing(sqlite3.connect(path / "catalog.db")) as database:
            database.text_factory = bytes
            found = database.execute("PRAGMA integrity_check").fetchall()
            return (
                found == [(b"ok",)] and not database.execute("PRAGMA foreign_key_check").fetchall()
            )
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return False


def change(path: Path, *statements: str) -> None:
    """Write what imagefs never would."""
    with closing(sqlite3.connect(path / "catalog.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def _zero_pages(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(1, len(data) // PAGE) * PAGE
        data[at : at + PAGE] = bytes(PAGE)


def _flip_bytes(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 20, 400])):
        data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)


def _swap_pages(data: bytearray, chance: random.Random) -> None:
    one, other = (chance.randrange(1, len(data) // PAGE) * PAGE for _ in range(2))
    data[one : one + PAGE], data[other : other + PAGE] = (
        data[other : other + PAGE],
        data[one : one + PAGE],
    )


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(PAGE, len(data)) :]


def _scribble(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at : at + 5000] = chance.randbytes(min(5000, len(data) - at))


Damage = Callable[[bytearray, random.Random], None]


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("damage", [_zero_pages, _flip_bytes, _swap_pages, _cut, _scribble])
def test_any_damage_ends_in_a_line(path: Path, damage: Damage, seed: int) -> None:
    """No command has a traceback; `doctor` and `fsck` never call sound what SQLite does not."""
    file = path / "catalog.db"
    data = bytearray(file.read_bytes())
    damage(data, random.Random(f"{damage.__name__} {seed}"))
    file.write_bytes(data)
    sound = is_sound(path)
    for command in ("doctor", "fsck"):
        assert imagefs(path, command).exit_code != OK or sound
    for arguments in COMMANDS:
        imagefs(path, *arguments)
    assert imagefs(path, "fsck", "--repair").exit_code != OK or is_sound(path)


GARBAGE = (
    "UPDATE images SET status = 'nonsense' WHERE number = 5",
    "UPDATE images SET visibility = 'x' WHERE number = 5",
    "UPDATE images SET updated_at = 'yesterday' WHERE number = 5",
    "UPDATE images SET size = 'large' WHERE number = 5",
    "UPDATE images SET name = x'ff00fe' WHERE number = 5",
    "UPDATE images SET name = CAST(x'ff00fe' AS TEXT) WHERE number = 5",
    "UPDATE locations SET state = 'odd' WHERE number = 5",
    "UPDATE locations SET name = NULL WHERE number = 5",
    "UPDATE folders SET kind = 'odd' WHERE name = 'folder'",
    "UPDATE folders SET kind = 'plain' WHERE kind = 'root'",
    "UPDATE folders SET parent = number WHERE name = 'folder'",
    "DELETE FROM folders WHERE name = '.trash'",
    "DROP TABLE tags",
)


@pytest.mark.parametrize("statement", GARBAGE)
def test_garbage_in_a_column(path: Path, statement: str) -> None:
    """A row that makes no sense is told as damage, not with a traceback."""
    change(path, "PRAGMA foreign_keys = off", statement)
    for arguments in (*COMMANDS, ("fsck",), ("doctor",), ("fsck", "--repair")):
        imagefs(path, *arguments)


def test_a_ring_of_folders(path: Path) -> None:
    """Folders that are inside each other make nobody walk for ever, and are found."""
    change(
        path,
        "UPDATE folders SET parent = (SELECT number FROM folders WHERE name = 'below')"
        " WHERE name = 'folder'",
    )
    assert imagefs(path, "doctor").exit_code == FAILURE
    assert imagefs(path, "fsck").exit_code == FAILURE
    vfs = Vfs(open_catalog(load(path / "imagefs.toml")))
    with vfs.catalog.read() as repository:
        number = repository.connection.exec_driver_sql(
            "SELECT number FROM folders WHERE name = 'below'"
        ).scalar_one()
    with pytest.raises(CatalogDamaged, match="inside itself"):
        vfs.path(vfs.folder(number))
    vfs.close()


def test_a_file_that_is_no_database(path: Path) -> None:
    """One line, an exit code of its own, and what to do."""
    (path / "catalog.db").write_bytes(b"not a database at all\n" * 1000)
    told = imagefs(path, "list")
    assert told.exit_code == DAMAGED
    assert "restore a backup" in told.stderr
    assert imagefs(path, "doctor").exit_code == FAILURE
    assert imagefs(path, "fsck").exit_code == DAMAGED
    assert imagefs(path, "init").exit_code == DAMAGED
