"""Copies between two stores of one server: no byte of them passes through this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from catalog.copies.recovery import recover
from catalog.process import Process, this_process
from catalog.rules import copies
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    link,
    names_in,
    new_catalog,
    put,
    read,
    remove,
    rename,
    settings_at,
    some_bytes,
)
from tests.kit.stores import swift_account
from tests.kit.stores.s3_account import Account
from tests.servers.swift import Swift

DATA = some_bytes(300_007)


def s3_stores(server: Swift, folder: Path) -> dict[str, BaseModel]:
    """Two buckets."""
    account = Account(server.s3_endpoint, server.user, server.key, folder)
    for bucket in ("images", "elsewhere"):
        account.make_bucket(bucket)
    return {"here": account.settings(), "there": account.settings(bucket="elsewhere")}


def swift_stores(server: Swift, folder: Path) -> dict[str, BaseModel]:
    """Two containers of one reference."""
    return {
        name: swift_account.settings(server, folder, reference="ref1") for name in ("here", "there")
    }


@pytest.fixture(params=["s3", "swift"])
def vfs(request: pytest.FixtureRequest, swift_server: Swift, tmp_path: Path) -> Iterator[Vfs]:
    """A catalog with the stores `here` and `there` of one server."""
    make = s3_stores if request.param == "s3" else swift_stores
    usual = settings_at(tmp_path)
    stores = {**usual.stores, **make(swift_server, tmp_path)}
    catalog = new_catalog(Settings("test", usual.catalog, stores))
    yield Vfs(catalog)
    catalog.close()


def test_links_and_moves(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copy is whole, and its own: the original may go."""
    put(vfs, "/here/a", DATA)
    put(vfs, "/here/b", DATA[::-1])
    monkeypatch.setattr(vfs.catalog.store("there"), "writer", None)
    link(vfs, "/here/a", "/there/a")
    rename(vfs, "/here/b", "/there/b")
    remove(vfs, "/here/a")
    assert names_in(vfs, "/here") == set()
    assert read(vfs, "/there/a") == DATA
    assert read(vfs, "/there/b") == DATA[::-1]


def test_what_a_killed_copy_has_left_is_removed(vfs: Vfs) -> None:
    """Nothing can be gone on with where the server itself copies."""
    image = put(vfs, "/here/a", DATA)
    here = this_process()
    dead = Process(here.host, here.boot, here.pid, here.started + 1)
    copies.start_copy(vfs.catalog, image.number, "there", dead)
    there = vfs.catalog.store("there")
    writer = there.writer(image.id)
    writer.write(bytes(65 << 20))
    writer.write(b"more than a part")
    recover(vfs.catalog)
    link(vfs, "/here/a", "/there/a")
    assert list(there.leftovers(-60)) == []
    assert read(vfs, "/there/a") == DATA
    writer.cancel()


def test_what_the_server_does_not_find_passes_through_this_host(vfs: Vfs) -> None:
    """Its location has become another's; a copy elsewhere has the data."""
    image = put(vfs, "/here/a", DATA)
    link(vfs, "/here/a", "/file/a")
    here = vfs.catalog.store("here")
    here.delete(here.url_of(image.id))
    link(vfs, "/here/a", "/there/a")
    assert read(vfs, "/there/a") == DATA
    there = vfs.catalog.store("there")
    assert there.stat(there.url_of(image.id)).size == len(DATA)
