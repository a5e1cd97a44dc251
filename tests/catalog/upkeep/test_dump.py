"""`imagefs dump` and `load`: everything of a catalog, from one database into another one."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import AlreadyExists, InvalidValue, NoCatalog, SchemaTooNew, SchemaTooOld
from catalog.repository.administration import dump as rows
from catalog.repository.tables import OF_PROCESSES, metadata
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from catalog.upkeep.dump import dump, load
from catalog.upkeep.fsck import fsck
from tests.kit.catalog import begin, image_at, make_folder, names_in, put, read, settings_at
from tests.kit.full_catalog import fill
from tests.servers.databases import STARTS, home

# They choose their databases themselves.
pytestmark = pytest.mark.sqlite


def dumped(url: str) -> list[bytes]:
    """The lines of a dump."""
    out = io.BytesIO()
    dump(url, out.write)
    return out.getvalue().splitlines(keepends=True)


def contents(lines: list[bytes]) -> list[Any]:
    """What a dump tells of the catalog, without what it tells of itself."""
    header, *found, _trailer = map(json.loads, lines)
    return [{name: header[name] for name in ("schema", "tables", "last_numbers")}, *found]


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The url of a database that is not there yet."""
    return f"sqlite:///{tmp_path / 'other.db'}"


@pytest.fixture
def urls(tmp_path: Path) -> Iterator[list[str]]:
    """A database of each kind of server, and a SQLite at the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(home())
        servers = [stack.enter_context(STARTS[kind](folder / kind)) for kind in sorted(STARTS)]
        yield [
            *(server.database("catalog") for server in reversed(servers)),
            f"sqlite:///{tmp_path / 'last.db'}",
        ]


@pytest.mark.server
def test_all_the_way_round(vfs: Vfs, settings: Settings, urls: list[str], tmp_path: Path) -> None:
    """SQLite, PostgreSQL, MariaDB, SQLite: no row and no value is another one than before."""
    fill(vfs)
    lines = dumped(settings.catalog.url)
    assert all(json.loads(lines[0])["tables"].values())
    findings = list(fsck(vfs.catalog, repair=False))
    numbers = set()
    for url in urls:
        load(url, lines)
        again = dumped(url)
        assert contents(again) == contents(lines)
        lines = again
        tree = Vfs(open_catalog(settings_at(tmp_path, url=url)))
        assert list(fsck(tree.catalog, repair=False)) == findings
        assert tree.catalog.damages() == []
        assert tree.catalog.last_change() == vfs.catalog.last_change()
        numbers.add(_next_numbers(tree))
        tree.close()
    assert numbers == {_next_numbers(vfs)}


def _next_numbers(vfs: Vfs) -> tuple[int, ...]:
    """The numbers that new rows get."""
    folder, image = make_folder(vfs, "/file/new").number, put(vfs, "/memory/new").number
    with vfs.catalog.read() as repository:
        (location,) = repository.locations_of(image)
    return folder, image, location.number, vfs.catalog.last_change()


def test_every_table_is_dumped_but_those_of_processes() -> None:
    """A table that is added later, too."""
    kept = {table.name for table in rows.tables()}
    assert {*metadata.tables} - kept == OF_PROCESSES | {"schema_floor"}
    assert {"leases", "uploads"} <= OF_PROCESSES
    assert "images" in kept


def test_into_a_new_catalog(vfs: Vfs, settings: Settings, other: str, tmp_path: Path) -> None:
    """One that `imagefs init` has just made: its own folders make room for those of the dump."""
    put(vfs, "/file/a", b"of a")
    into = settings_at(tmp_path, url=other)
    make_catalog(into).close()
    load(other, dumped(settings.catalog.url))
    tree = Vfs(open_catalog(into))
    assert read(tree, "/file/a") == b"of a"
    assert image_at(tree, "/file/a") == image_at(vfs, "/file/a")
    assert tree.root == vfs.root
    tree.close()


def test_a_catalog_in_use_is_refused(vfs: Vfs, settings: Settings) -> None:
    """Whatever it has: nothing of it is changed."""
    lines = dumped(settings.catalog.url)
    put(vfs, "/file/a")
    with pytest.raises(AlreadyExists, match="has rows in history"):
        load(settings.catalog.url, lines)
    make_folder(vfs, "/file/mine")
    with pytest.raises(AlreadyExists, match="folders"):
        load(settings.catalog.url, lines)
    assert names_in(vfs, "/file") == {"a", "mine"}


@pytest.mark.parametrize("lost", ["trailer", "row", "part of a line", "table", "header", "all"])
def test_a_file_that_was_cut_is_refused(
    vfs: Vfs, settings: Settings, other: str, lost: str
) -> None:
    """And so is one that was changed: nothing is loaded then."""
    fill(vfs)
    lines = dumped(settings.catalog.url)
    tags = next(n for n, line in enumerate(lines) if b'"table":"tags"' in line)
    match lost:
        case "trailer":
            del lines[-1]
        case "row":
            del lines[tags + 1]
        case "part of a line":
            lines[-1] = lines[-1][:-2]
        case "table":
            del lines[tags : tags + 4]
        case "header":
            del lines[0]
        case "all":
            lines.clear()
    with pytest.raises(InvalidValue, match="the dump"):
        load(other, lines)
    with pytest.raises(NoCatalog, match="init"):
        dump(other.replace("other.db", "nothing.db"), lambda _: None)
    load(other, dumped(settings.catalog.url))


def test_other_values_are_refused(vfs: Vfs, settings: Settings, other: str) -> None:
    """With the line where they are."""
    put(vfs, "/file/a")
    for old, new in ((b'"status"', b'"state"'), (b"Z", b"?"), (b"[", b"[1,")):
        lines = [line.replace(old, new) for line in dumped(settings.catalog.url)]
        with pytest.raises(InvalidValue, match=r"line [0-9]+: "):
            load(other, lines)


@pytest.mark.parametrize(
    ("schema", "error"), [("9999", SchemaTooNew), ("0001", SchemaTooOld)], ids=["newer", "older"]
)
def test_a_dump_of_another_schema_is_refused(
    vfs: Vfs, settings: Settings, other: str, schema: str, error: type[Exception]
) -> None:
    """It says which version of the program loads it."""
    header, *more = dumped(settings.catalog.url)
    changed = json.dumps(json.loads(header) | {"schema": schema, "program": "7.8.9"}).encode()
    with pytest.raises(error, match=r"7\.8\.9"):
        load(other, [changed + b"\n", *more])


def test_uploads_in_progress_are_told(vfs: Vfs, settings: Settings, other: str) -> None:
    """They stay with the old database; in the new one `fsck` ends them."""
    upload = begin(vfs, "/file/a", b"half")
    upload.record()
    done = dump(settings.catalog.url, lambda _: None)
    assert [image.name for image in done.left_out] == ["a"]
    load(other, dumped(settings.catalog.url))
    with closing(sqlite3.connect(other.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
        assert connection.execute("SELECT status FROM images").fetchone() == ("saving",)
    upload.cancel("enough")


def test_a_dump_is_of_one_moment(vfs: Vfs, settings: Settings, other: str) -> None:
    """What is committed while it is written is not in it."""
    put(vfs, "/file/a")
    lines = []

    def write(line: bytes) -> None:
        lines.append(line)
        if len(lines) == 3:
            put(vfs, "/file/b")

    dump(settings.catalog.url, write)
    load(other, lines)
    with closing(sqlite3.connect(other.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT name FROM images").fetchall() == [("a",)]


def test_pages_miss_nothing(
    vfs: Vfs, settings: Settings, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a key of several columns goes on in the middle of its first one."""
    monkeypatch.setattr(rows, "PAGE", 2)
    fill(vfs)
    load(other, dumped(settings.catalog.url))
    monkeypatch.undo()
    assert contents(dumped(other)) == contents(dumped(settings.catalog.url))
