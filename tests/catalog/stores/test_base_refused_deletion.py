"""A store that refuses a deletion has everything as before: asked of real servers.

What the catalog then does is in `tests/catalog/copies/test_removal.py`, that of S3 in
`test_s3_refusals.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import StoreRefused, StoreUnavailable
from catalog.stores.rbd.store import RbdStore
from catalog.stores.swift.store import SwiftStore
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.rbd_pool import Pool
from tests.kit.stores.swift_account import Account, container_of, settings, swift_store
from tests.servers.network.breaking_proxy import Fault, Proxy
from tests.servers.swift import Swift


@pytest.fixture
def store(swift_server: Swift, tmp_path: Path) -> Iterator[SwiftStore]:
    """A store of small segments, in Swift."""
    with swift_store(swift_server, tmp_path) as store:
        yield store


def _as_member(server: Swift, folder: Path, container: str) -> SwiftStore:
    """The same store, for a user who may do what the containers' lists say."""
    url = {"storage_url": server.storage_url}
    return SwiftStore(
        "sw", settings(server, folder, user="test:member", container=container, **url)
    )


@pytest.mark.parametrize("forbidden", ["", "_segments"])
@pytest.mark.parametrize("kind", ["plain", "static", "dynamic"])
def test_swift_asks_before_it_deletes(
    swift_server: Swift, store: SwiftStore, tmp_path: Path, forbidden: str, kind: str
) -> None:
    """Whichever of the two containers is not ours to change, the object stays whole."""
    account, container = Account(swift_server), container_of(store)
    segments = f"{container}_segments"
    if kind == "dynamic":
        account.put_dlo(f"{segments}/a/x", DATA, 1 << 16)
        account.ask("PUT", f"{container}/a", X_Object_Manifest=f"{segments}/a/x")
        url = store.url_of("a")
    else:
        url = put_by_writer(store)("a", DATA if kind == "static" else DATA[:1000])
    for name in (container, segments):
        allowed = "" if name == container + forbidden else "test:member"
        reads = "test:member,.rlistings"
        account.ask("POST", name, X_Container_Read=reads, X_Container_Write=allowed)
    before = account.names(container), account.names(segments)
    member = _as_member(swift_server, tmp_path, container)
    if kind == "plain" and forbidden:
        member.delete(url)
        assert account.names(container) == []
        return
    with pytest.raises(StoreRefused, match="forbids it to this user"):
        member.delete(url)
    assert (account.names(container), account.names(segments)) == before
    assert len(read_all(store, url)) == store.stat(url).size


def test_swift_lists_before_it_deletes(
    swift_server: Swift, store: SwiftStore, tmp_path: Path
) -> None:
    """Who may not see what dead uploads have left is refused while the object is there."""
    account, container = Account(swift_server), container_of(store)
    url = put_by_writer(store)("a", DATA[:1000])
    account.ask("POST", container, X_Container_Read="test:member", X_Container_Write="test:member")
    with pytest.raises(StoreRefused, match="forbids it to this user"):
        _as_member(swift_server, tmp_path, container).delete(url)
    assert read_all(store, url) == DATA[:1000]


@pytest.mark.parametrize(("deleted", "error"), [(0, StoreRefused), (1, StoreUnavailable)])
def test_swift_refuses_segments_in_an_answer_of_success(
    behind: SwiftStore, between: Proxy, deleted: int, error: type[StoreUnavailable]
) -> None:
    """The reason is told; with some of them gone it is no refusal after which all is there."""
    url = put_by_writer(behind)("a", DATA)
    told = '{"Response Status": "400 Bad Request", "Errors": [["/c_segments/a/1", "403 Forbidden"]]'
    answer = Fault(status=200, body=f'{told}, "Number Deleted": {deleted}}}'.encode())
    between.set_plan(lambda asked: answer if "multipart-manifest=delete" in asked.target else None)
    with pytest.raises(StoreUnavailable, match=r"1 of its segments .* 403 Forbidden") as raised:
        behind.delete(url)
    assert type(raised.value) is error


_ALL_BUT_THE_TRASH = ("id.", "header.", "data.", "object_map.", "children")
"""What the image's objects are called; `rbd_trash`, by which Ceph removes images, is not there."""


def test_rbd_puts_the_snapshot_back(pool: Pool) -> None:
    """Ceph lets us remove the snapshot and refuses the image: it can be read, and cloned, again."""
    ceph, url = pool.ceph, pool.put("a", DATA)
    osd = [f"allow r class-read pool={ceph.pool}"]
    osd += [f"allow rwx pool={ceph.pool} object_prefix rbd_{name}" for name in _ALL_BUT_THE_TRASH]
    caps = ("mon", "profile rbd", "osd", ", ".join(osd))
    ceph.run("ceph", "auth", "get-or-create", "client.keeper", *caps)
    (ceph.folder / "keeper").write_text(ceph.run("ceph", "auth", "get", "client.keeper"))
    store: RbdStore = pool.store(user="keeper", keyring=ceph.folder / "keeper")
    with pytest.raises(StoreRefused):
        store.delete(url)
    assert read_all(store, url) == DATA
    store.close()
    (snapshot,) = pool.rbd_json("snap", "ls", "a")
    assert (snapshot["name"], snapshot["protected"]) == ("snap", "true")
