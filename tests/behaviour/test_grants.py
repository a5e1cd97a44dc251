"""Mounts and a server whose users of the database may do what `imagefs db grants` says, no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.catalog import Catalog
from catalog.errors import CatalogForbidden
from catalog.model.listings import ImageFilter
from catalog.repository.database import Database
from catalog.rules.users import add_user
from tests.kit.daemon import Daemon, wait_until
from tests.kit.service import service
from tests.kit.wire import basic
from tests.servers.databases import DatabaseServer

# They choose their database themselves.
pytestmark = [pytest.mark.sqlite, pytest.mark.mount]


@pytest.fixture
def owned(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Daemon]:
    """A catalog in that server with one image, which its owner has made."""
    made = Daemon(tmp_path, url=database_server.database("catalog"))
    with made.mounted():
        (made.path / "file/a").write_bytes(b"data")
    made.log.unlink()
    yield made
    made.end()
    database_server.drop("catalog")


@pytest.fixture
def owner(owned: Daemon) -> Iterator[Catalog]:
    """The catalog, as its owner sees it."""
    opened = owned.catalog()
    yield opened
    opened.close()


def become(database_server: DatabaseServer, daemon: Daemon, role: str) -> str:
    """Let the daemon connect as a user with the rights of that role; return its url."""
    user = f"imagefs_{role}"
    sql = daemon.command("db", "grants", role).splitlines()
    made = [line.removeprefix("-- ").replace("…", "password") for line in sql if line[0] == "-"]
    assert len(made) == 1
    if database_server.kind == "postgresql":
        database_server.execute(None, f"DROP ROLE IF EXISTS {user}")
    else:
        database_server.execute(None, f"DROP USER IF EXISTS {user}@'%'")
    database_server.execute("catalog", *made, *(line for line in sql if line[0] != "-"))
    url = database_server.url("catalog")
    login = f"{user}:password@"
    other = url.replace("postgres@", login).replace("root@", login)
    daemon.config.write_text(daemon.config.read_text().replace(url, other))
    return other


def refused(url: str, *statements: str) -> None:
    """Each of the statements is refused to that user."""
    database = Database.open(url)
    for statement in statements:
        with pytest.raises(CatalogForbidden), database.write() as repository:
            repository.connection.execute(text(statement))
    database.close()


def denials(database_server: DatabaseServer) -> list[str]:
    """What PostgreSQL has refused, as its log tells; MariaDB tells nothing."""
    log = Path(os.readlink(f"/proc/{database_server.process.pid}/fd/2")).read_text()
    return [line for line in log.splitlines() if "permission denied" in line]


def test_a_reader(database_server: DatabaseServer, owned: Daemon, owner: Catalog) -> None:
    """A mount with -o ro reads, says what it has open, and asks for nothing that is refused."""
    image = next(iter(owner.all_images(ImageFilter())))
    with owner.write() as repository:
        # What any other mount would do in the background.
        repository.want_copies(image.number, ["other"], image.created_at)
        repository.set_image(image.number, gate=None)
    before = denials(database_server)
    url = become(database_server, owned, "reader")
    owned.options = ("-o", "ro")
    with owned.mounted():
        assert os.listdir(owned.path / "file") == ["a"]
        with (owned.path / "file/a").open("rb") as file:
            assert file.read() == b"data"
            wait_until(lambda: _leases(owner, image.number), "the lease is published")
        with pytest.raises(OSError, match="Read-only"):
            (owned.path / "file/b").write_bytes(b"data")
        wait_until(lambda: not _leases(owner, image.number), "the lease is dropped")
    assert owned.unusual() == []
    assert denials(database_server) == before
    refused(
        url,
        "SELECT password_hash FROM users",
        "INSERT INTO tags (image, tag) VALUES (1, 'x')",
        "UPDATE images SET status = 'killed'",
        "DELETE FROM changes",
        "UPDATE schema_floor SET oldest = '9999'",
        "UPDATE alembic_version SET version_num = '9999'",
        "DROP TABLE images",
    )


def _leases(catalog: Catalog, number: int) -> int:
    with catalog.read() as repository:
        return len(repository.leases(number))


def test_an_uploader(database_server: DatabaseServer, owned: Daemon) -> None:
    """Any other mount: images come, get names and properties, go to the trash and out of it."""
    before = denials(database_server)
    url = become(database_server, owned, "uploader")
    with owned.mounted():
        folder = owned.path / "file/folder"
        folder.mkdir()
        (folder / "b").write_bytes(b"more")
        os.setxattr(folder / "b", "user.property.os", b"Debian")
        (folder / "b").rename(folder / "c")
        os.link(folder / "c", owned.path / "other/c")
        (folder / "d").write_bytes(b"anew")
        (folder / "d").rename(folder / "c")
        (folder / "c").unlink()
        (owned.path / "file/a").unlink()
        (owned.path / "file/.trash/a").rename(owned.path / "file/a")
        (owned.path / "file/a").unlink()
        (owned.path / "file/.trash/a").unlink()
        folder.rmdir()
    assert owned.unusual() == []
    assert "/other/c" in owned.command("list")
    assert denials(database_server) == before
    refused(
        url,
        "SELECT password_hash FROM users",
        "UPDATE changes SET image = 1",
        "DELETE FROM history",
        "UPDATE alembic_version SET version_num = '9999'",
    )


def test_a_server(database_server: DatabaseServer, owned: Daemon, owner: Catalog) -> None:
    """It knows users, and the timers' commands run with its rights."""
    add_user(owner, "alice", "password")
    before = denials(database_server)
    url = become(database_server, owned, "server")
    with service(owned, "read") as running:
        login = basic("alice", "password")
        assert running.ask("PUT /file/b", login, body=b"data").status == 201
        assert running.ask("GET /file/b", login).body == b"data"
        assert running.ask("DELETE /file/b", login).status == 204
    for command in (["scrub"], ["verify"], ["fsck", "--repair"]):
        owned.command(*command)
    assert denials(database_server) == before
    refused(
        url,
        "UPDATE users SET role = 'admin'",
        "DELETE FROM users",
        "UPDATE alembic_version SET version_num = '9999'",
    )
