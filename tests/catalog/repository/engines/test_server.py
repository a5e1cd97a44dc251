"""The catalog in a database server: alike in what it keeps, bounded in what it waits for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import make_url, text

from catalog.catalog import Catalog
from catalog.errors import (
    AlreadyExists,
    CatalogAway,
    CatalogForbidden,
    CatalogLocked,
    InvalidSettings,
    NoCatalog,
)
from catalog.model.access import ADMIN
from catalog.repository.engines import opening
from catalog.repository.engines import server as server_module
from catalog.repository.engines.postgresql import Postgresql
from catalog.repository.schema import SCHEMA, schema_version
from catalog.repository.tables import metadata
from catalog.rules import uploads
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from catalog.upkeep.schema import upgrade
from tests.catalog.repository.older import bring_to, revisions
from tests.kit.catalog import begin, entry, image_at, make_folder, names_in, put, read, settings_at
from tests.kit.daemon import wait_until
from tests.servers.databases import STARTS, DatabaseServer, home

# They choose their database themselves.
pytestmark = pytest.mark.sqlite


def test_the_schema_is_that_of_the_models(catalog: Catalog) -> None:
    """The migrations make what the tables say, also there."""
    with catalog.read() as repository:
        context = MigrationContext.configure(repository.connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []


def test_an_empty_database_is_no_catalog(settings: Settings) -> None:
    """Nothing is made by looking."""
    with pytest.raises(NoCatalog, match="imagefs init"):
        open_catalog(settings)


def test_names_compare_byte_for_byte(vfs: Vfs) -> None:
    """Case, accents and spaces at the end make another name; order is that of the bytes."""
    names = ["a", "A", "a ", "ä", "Z", "z", "ａ", "Straße", "Strasse", "%", "_", "😀"]
    for name in names:
        if name != "a ":  # refused as a name, and still another one
            put(vfs, f"/file/{name}", name.encode())
    for name in names:
        if name != "a ":
            assert read(vfs, f"/file/{name}") == name.encode()
    folder = entry(vfs, "/file/a").folder
    with vfs.catalog.read() as repository:
        assert repository.entry_at(folder, "a ") is None
        page = repository.folder_page(folder, ADMIN, limit=100)
    listed = [each.entry.name for each in page.listed]
    assert listed == sorted(listed, key=str.encode)


def test_times_and_sizes_are_exact(vfs: Vfs) -> None:
    """Microseconds in UTC, and sizes past what a float holds."""
    image = put(vfs, "/file/a")
    at = datetime(2026, 3, 29, 1, 59, 59, 123457, UTC)
    with vfs.catalog.write() as repository:
        repository.set_image(
            image.number, created_at=at, updated_at=at, size=2**53 + 1, mtime=2**63 - 1
        )
    found = vfs.catalog.image(image.number)
    assert (found.created_at, found.updated_at) == (at, at)
    assert (found.size, found.mtime) == (2**53 + 1, 2**63 - 1)


def test_numbers_go_on_after_the_root(vfs: Vfs) -> None:
    """The root has a given number; folders made later get others, which are never used again."""
    first = make_folder(vfs, "/file/first").number
    vfs.remove_folder(vfs.place("/file/first"), ADMIN)
    assert make_folder(vfs, "/file/second").number > first > vfs.root.number


def test_the_database_s_clock(catalog: Catalog) -> None:
    """It is read as UTC."""
    with catalog.read() as repository:
        at = catalog._database.backend.clock(repository.connection)
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_feed_s_numbers_come_in_order(settings: Settings, vfs: Vfs) -> None:
    """Whoever reads the feed while two processes write never misses a change."""
    other = Vfs(open_catalog(settings))
    folders = [make_folder(vfs, f"/file/{name}").number for name in "ab"]
    stop, seen, last = threading.Event(), [], vfs.catalog.last_change()

    def write(tree: Vfs, name: str) -> None:
        for number in range(40):
            make_folder(tree, f"/file/{name}/{number}")

    def follow() -> None:
        at = last
        while True:
            is_last = stop.is_set()
            found = vfs.catalog.changes(at, 1000)
            seen.extend(found)
            at = found[-1].number if found else at
            if is_last and not found:
                return

    with ThreadPoolExecutor() as pool:
        following = pool.submit(follow)
        for writing in [pool.submit(write, vfs, "a"), pool.submit(write, other, "b")]:
            writing.result()
        stop.set()
        following.result()
    other.close()
    told = [(change.folder, change.name) for change in seen if change.folder in folders]
    assert sorted(told) == sorted((f, str(n)) for f in folders for n in range(40))


def test_who_waits_for_a_change_keeps_its_connection(
    database_server: DatabaseServer, settings: Settings, vfs: Vfs
) -> None:
    """A second in which nothing changes is no failure; a change elsewhere ends the wait."""
    if database_server.kind != "postgresql":
        pytest.skip("MariaDB is asked again and again")
    other = open_catalog(settings)
    backend = vfs.catalog._database.backend
    assert isinstance(backend, Postgresql)
    vfs.catalog.wait_for_change(0.1)
    first = backend._listener
    vfs.catalog.wait_for_change(0.1)
    assert backend._listener is first
    assert first is not None
    assert not first.closed
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(vfs.catalog.wait_for_change, 600)
        make_folder(Vfs(other), "/file/new")
        waiting.result()
    other.close()


def test_two_hosts_race_for_a_name(settings: Settings, vfs: Vfs) -> None:
    """One wins, and the other one is told that the name is taken."""
    other = Vfs(open_catalog(settings))
    barrier = threading.Barrier(2)

    def race(tree: Vfs, name: str) -> bool:
        barrier.wait()
        try:
            begin(tree, f"/file/{name}").cancel("lost")
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            won = list(pool.map(race, (vfs, other), [str(number)] * 2))
            assert won.count(True) == 1
    other.close()


def test_a_writer_that_never_ends_is_not_waited_for_long(
    settings: Settings, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told that the catalog is locked; who only reads goes on."""
    image = put(vfs, "/file/a")
    monkeypatch.setattr(server_module, "LOCK_TIME", 1)
    impatient = open_catalog(settings)
    with vfs.catalog.write() as repository:
        repository.set_image(image.number, min_disk=1)
        with pytest.raises(CatalogLocked), impatient.write():
            pass
        assert impatient.image(image.number).min_disk == 0
    with impatient.write() as repository:
        assert repository.image(image.number).min_disk == 1
    impatient.close()


def test_a_statement_that_takes_too_long_is_ended(
    database_server: DatabaseServer, settings: Settings, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server, after the time that this side has given."""
    monkeypatch.setattr(server_module, "STATEMENT_TIME", 1)
    impatient = open_catalog(settings)
    sleep = {"postgresql": "SELECT pg_sleep(60)", "mariadb": "SELECT sleep(60) FROM folders"}
    with pytest.raises(CatalogLocked), impatient.read() as repository:
        repository.connection.execute(text(sleep[database_server.kind]))
    impatient.close()


def test_a_silent_server_is_given_up(
    database_server: DatabaseServer, settings: Settings, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks it waits for a stated time; the others are refused at once, until it answers."""
    image = put(vfs, "/file/a")
    monkeypatch.setattr(server_module, "SILENCE", 1)
    monkeypatch.setattr(server_module, "CONNECT_TIME", 2)
    impatient = open_catalog(settings)
    assert impatient.image(image.number)
    processes = [database_server.process.pid, *_children(database_server.process.pid)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
        # It may still answer until all its threads have stopped.
        wait_until(partial(_is_stopped, process), "it is stopped")
    try:
        for _ in range(3):
            with pytest.raises(CatalogAway):
                impatient.image(image.number)
        with pytest.raises(CatalogAway), impatient.write():
            pass
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    wait_until(lambda: _answers(impatient, image.number), "it answers again")
    impatient.close()


def _is_stopped(process: int) -> bool:
    threads = Path(f"/proc/{process}/task").iterdir()
    return all("\nState:\tT" in (each / "status").read_text() for each in threads)


def _children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(pid) for pid in found.split()]


def _answers(catalog: Catalog, number: int) -> bool:
    try:
        return catalog.image(number).number == number
    except CatalogAway:
        return False


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for a server of the test's own."""
    with home() as folder:
        yield folder / "server"


@pytest.mark.server
@pytest.mark.parametrize("kind", sorted(STARTS))
def test_a_restart_is_survived(kind: str, place: Path, tmp_path: Path) -> None:
    """Pooled connections have ended without a word: nobody is told of that but by success."""
    start = STARTS[kind]
    with start(place) as first:
        vfs = Vfs(make_catalog(settings_at(tmp_path, url=first.database("catalog"))))
        number = put(vfs, "/file/a").number
        first.process.kill()
        first.process.wait()
        for _ in range(3):
            with pytest.raises(CatalogAway):
                vfs.catalog.image(number)
    with start(place, first.port):
        wait_until(lambda: _answers(vfs.catalog, number), "it answers again")
        put(vfs, "/file/b")
    # Between two requests: the first one after it succeeds.
    with start(place, first.port):
        assert names_in(vfs, "/file") == {"a", "b"}
        put(vfs, "/file/c")
        vfs.close()


@pytest.mark.server
@pytest.mark.parametrize("kind", sorted(STARTS))
def test_a_complete_upload_waits_for_a_server(kind: str, place: Path, tmp_path: Path) -> None:
    """What took an hour to upload is not lost to a restart of ten seconds."""
    start = STARTS[kind]
    with start(place) as first:
        vfs = Vfs(make_catalog(settings_at(tmp_path, url=first.database("catalog"))))
        upload = begin(vfs, "/file/a", b"all of it")
        upload.finish()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(upload.commit)
        with start(place, first.port):
            waiting.result()
            assert read(vfs, "/file/a") == b"all of it"
            vfs.close()


@pytest.mark.server
@pytest.mark.parametrize("kind", sorted(STARTS))
def test_a_lost_answer_to_commit_is_no_failure(
    kind: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is active, and its writer is told so when the database answers again."""
    with STARTS[kind](place) as database_server:
        vfs = Vfs(make_catalog(settings_at(tmp_path, url=database_server.database("catalog"))))
        upload = begin(vfs, "/file/a", b"all of it")
        usual = uploads.finish_upload

        def answer_is_lost(*arguments: Any) -> None:
            usual(*arguments)
            raise CatalogAway("the database", "connection lost")

        monkeypatch.setattr(uploads, "finish_upload", answer_is_lost)
        upload.commit()
        assert read(vfs, "/file/a") == b"all of it"
        vfs.close()


def test_who_may_not_is_told_so(database_server: DatabaseServer, tmp_path: Path) -> None:
    """A user without rights gets CatalogForbidden, and not a traceback."""
    url = database_server.database("closed")
    make_catalog(settings_at(tmp_path, url=url)).close()
    login = {
        "postgresql": "CREATE ROLE nobody LOGIN",
        "mariadb": "CREATE USER nobody@127.0.0.1",
    }[database_server.kind]
    database_server.execute(None, login)
    told = url.replace("postgres@", "nobody@").replace("root@", "nobody@")
    with pytest.raises(CatalogForbidden):
        open_catalog(settings_at(tmp_path, url=told))
    database_server.drop("closed")


def test_any_password(database_server: DatabaseServer, tmp_path: Path) -> None:
    """Also one beyond Latin-1, and with what has a meaning in a url."""
    url = database_server.database("secret")
    make_catalog(settings_at(tmp_path, url=url)).close()
    password = "p@ss/wörd ✓:%"
    login = {
        "postgresql": (f"CREATE ROLE secretary LOGIN SUPERUSER PASSWORD '{password}'",),
        "mariadb": (
            "CREATE USER secretary@127.0.0.1",
            f"SET PASSWORD FOR secretary@127.0.0.1 = PASSWORD('{password}')",
            "GRANT ALL ON secret.* TO secretary@127.0.0.1",
        ),
    }[database_server.kind]
    database_server.execute("secret", *login)
    told = make_url(url).set(username="secretary", password=password)
    settings = settings_at(tmp_path, url=told.render_as_string(hide_password=False))
    open_catalog(settings).close()
    database_server.drop("secret")


def test_no_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, database_server: DatabaseServer
) -> None:
    """With the extra that brings it."""

    def fails(*_: object) -> None:
        raise ImportError("no such module")

    monkeypatch.setattr(opening, "_open_server", fails)
    with pytest.raises(InvalidSettings, match=rf"imagefs\[{database_server.kind}\]"):
        opening.open_backend(database_server.url("catalog"))


@pytest.mark.parametrize("revision", [revisions()[0], revisions()[-2]])
def test_an_upgrade_goes_on_where_it_was_interrupted(
    database_server: DatabaseServer, settings: Settings, revision: str
) -> None:
    """From any schema; on MariaDB some statements of a step may be done already."""
    backend = opening.open_backend(settings.catalog.url)
    bring_to(backend, revision)
    if database_server.kind == "mariadb":
        # As a step that was killed behind its last statement leaves it.
        bring_to(backend, SCHEMA)
        with backend.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": revision})
    backend.close()
    upgrade(settings.catalog.url)
    vfs = Vfs(make_catalog(settings))
    put(vfs, "/file/a")
    assert image_at(vfs, "/file/a").size == len(b"some data")
    assert schema_version(vfs.catalog._database.backend) == SCHEMA
    vfs.close()
