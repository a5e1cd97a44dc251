"""The swift store against the contract, on a real Swift, and how it lays out what it stores."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import Conflict, DataChanged, InvalidName, NotFound, StoreFull, StoreUnavailable
from catalog.stores.base import Usage
from catalog.stores.registry import open_store
from catalog.stores.swift.client import Limits, SwiftClient
from catalog.stores.swift.location import SwiftLocation
from catalog.stores.swift.store import SwiftStore
from tests.kit.stores.contract import (
    DATA,
    GrowingContract,
    Subject,
    WriteContract,
    put_by_writer,
    read_all,
)
from tests.kit.stores.swift_account import (
    SEGMENT,
    Account,
    abandon_upload,
    container_of,
    settings,
    store_all,
    swift_store,
)
from tests.servers.swift import Swift


@pytest.fixture
def store(swift_server: Swift, tmp_path: Path) -> Iterator[SwiftStore]:
    """A store of small segments."""
    with swift_store(swift_server, tmp_path) as store:
        yield store


class TestContract(WriteContract):
    @pytest.fixture
    def subject(self, store: SwiftStore) -> Subject:
        """Objects of five segments."""
        return Subject(store, put_by_writer(store), store.url_of("missing"))


class TestContractOfPlainObjects(WriteContract):
    @pytest.fixture
    def subject(self, swift_server: Swift, tmp_path: Path) -> Iterator[Subject]:
        """Objects too small for segments."""
        with swift_store(swift_server, tmp_path, segment_size=1 << 20) as store:
            yield Subject(store, put_by_writer(store), store.url_of("missing"))


class TestGrowing(GrowingContract):
    @pytest.fixture(params=[{}, {"write_rate": 1 << 30}], ids=["free", "limited rate"])
    def subject(
        self, request: pytest.FixtureRequest, swift_server: Swift, tmp_path: Path
    ) -> Iterator[Subject]:
        """Objects of many segments, no smaller than Swift hands out at full speed; the policy."""
        with swift_store(swift_server, tmp_path) as made:
            section = settings(
                swift_server,
                tmp_path / "again",
                container=container_of(made),
                segment_size=1 << 20,
                policy=request.param,
            )
            store = open_store("sw", section)
            yield Subject(store, put_by_writer(store), store.url_of("missing"))
            store.close()


class TestContractWithPolicy(WriteContract):
    @pytest.fixture
    def subject(self, swift_server: Swift, tmp_path: Path) -> Iterator[Subject]:
        """The store as a section of the settings makes it."""
        with swift_store(swift_server, tmp_path) as made:
            section = settings(swift_server, tmp_path / "again", container=container_of(made))
            store = open_store("sw", section)
            yield Subject(store, put_by_writer(store), store.url_of("missing"))
            store.close()


# Layout


def test_large_image_is_a_static_large_object(store: SwiftStore, account: Account) -> None:
    """Segments have the size of the settings and a container of their own."""
    container = container_of(store)
    put_by_writer(store)("a", DATA)
    headers = account.ask("HEAD", f"{container}/a").headers
    assert headers["X-Static-Large-Object"] == "True"
    entries = account.ask("GET", f"{container}_segments?format=json").json()
    assert [entry["bytes"] for entry in entries] == [SEGMENT] * 4 + [len(DATA) - 4 * SEGMENT]
    assert {entry["name"].split("/")[0] for entry in entries} == {"a"}


def test_image_of_one_segment_is_a_plain_object(store: SwiftStore, account: Account) -> None:
    """Up to the size of a segment, there are none."""
    container = container_of(store)
    put_by_writer(store)("a", DATA[:SEGMENT])
    assert "X-Static-Large-Object" not in account.ask("HEAD", f"{container}/a").headers
    assert account.names(f"{container}_segments") == []
    assert read_all(store, store.url_of("a")) == DATA[:SEGMENT]


def test_manifests_of_manifests(
    swift_server: Swift, tmp_path: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More segments than one manifest may list are listed by several, and deleted with them."""
    monkeypatch.setattr(SwiftClient, "_ask_limits", lambda _: Limits(segments=3))
    with swift_store(swift_server, tmp_path, segment_size=30_000) as store:
        segments = f"{container_of(store)}_segments"
        url = put_by_writer(store)("a", DATA)
        assert len([name for name in account.names(segments) if "/m" in name]) == 6
        assert read_all(store, url) == DATA
        copied = store.copy(url, "b")
        store.delete(url)
        assert read_all(store, copied) == DATA
        store.delete(copied)
        assert account.names(segments) == []


def test_taken_file_is_sent_in_segments(
    store: SwiftStore, account: Account, tmp_path: Path
) -> None:
    """A staged file of several segments, of one, and an empty one arrive as they are."""
    for key, data in (("a", DATA), ("b", DATA[:100]), ("c", b"")):
        staged = tmp_path / key
        staged.write_bytes(data)
        writer = store.writer(key, len(data))
        writer.take(staged)
        assert read_all(store, writer.commit()) == data
    assert len(account.names(f"{container_of(store)}_segments")) == 5


def test_replaced_segments_are_removed(store: SwiftStore, account: Account) -> None:
    """The segments of an object that was replaced go with it."""
    put_by_writer(store)("a", DATA)
    put_by_writer(store)("a", DATA[::-1])
    assert len(account.names(f"{container_of(store)}_segments")) == 5


def test_cancelled_upload_leaves_no_segment(store: SwiftStore, account: Account) -> None:
    """What was sent is removed by `cancel`."""
    writer = store.writer("a")
    writer.write(DATA)
    writer.cancel()
    assert account.names(f"{container_of(store)}_segments") == []


def test_segments_of_an_upload_that_died(store: SwiftStore, account: Account) -> None:
    """They are leftovers once they are old, dropped by name or deleted with their key."""
    segments = f"{container_of(store)}_segments"
    put_by_writer(store)("a", DATA)
    abandon_upload(store, "a")
    abandon_upload(store, "b")
    assert list(store.leftovers(3600)) == []
    found = list(store.leftovers(-10))
    assert sorted(name.partition("/")[0] for name in found) == ["a", "b"]
    store.drop_leftover(next(name for name in found if name.startswith("b")))
    assert len(account.names(segments)) == 5 + 4
    store.delete(store.url_of("a"))
    assert account.names(segments) == []
    assert list(store.leftovers(-10)) == []


def test_segments_in_use_are_no_leftovers(store: SwiftStore, account: Account) -> None:
    """Neither listed nor dropped: also of an object whose metadata somebody overwrote."""
    container = container_of(store)
    url = put_by_writer(store)("a", DATA)
    account.ask("POST", f"{container}/a", X_Object_Meta_Other="1")
    assert list(store.leftovers(-10)) == []
    upload = account.names(f"{container}_segments")[0].rpartition("/")[0]
    with pytest.raises(Conflict):
        store.drop_leftover(upload)
    with pytest.raises(InvalidName):
        store.drop_leftover("a")
    assert read_all(store, url) == DATA


def test_container_without_one_for_segments(store: SwiftStore, account: Account) -> None:
    """As a Glance's is: reading and deleting need none, an upload makes it."""
    account.ask("DELETE", f"{container_of(store)}_segments")
    store.delete(put_by_writer(store)("a", b"small"))
    assert list(store.leftovers(0)) == []
    assert store.usage() == Usage(None, None)
    assert read_all(store, put_by_writer(store)("a", DATA)) == DATA


def test_deleting_a_key_spares_longer_ones(store: SwiftStore) -> None:
    """The key `a` is not `ab`, nor `a-b`."""
    urls = [put_by_writer(store)(key, DATA) for key in ("ab", "a-b", "a-123456")]
    put_by_writer(store)("a", DATA)
    store.delete(store.url_of("a"))
    assert [read_all(store, url) for url in urls] == [DATA] * 3


def test_quarantined_object_keeps_its_segments(store: SwiftStore, account: Account) -> None:
    """Neither a deletion of its key nor fsck takes them."""
    container = container_of(store)
    put_by_writer(store)("a", DATA)
    place = SwiftLocation.parse(store.quarantine("a"))
    put_by_writer(store)("a", DATA[::-1])
    store.delete(store.url_of("a"))
    assert list(store.leftovers(-10)) == []
    assert account.ask("GET", f"{place.container}/{place.name}").data == DATA
    assert len(account.names(f"{container}_segments")) == 5


def test_check_and_usage(store: SwiftStore, account: Account) -> None:
    """The tightest quota is told; a missing container is the store's failure, not the object's."""
    container = container_of(store)
    assert store.usage() == Usage(None, None)
    account.ask("POST", f"{container}_segments", X_Container_Meta_Quota_Bytes="400000")
    assert store.usage() == Usage(400_000, 400_000)
    account.ask("DELETE", container)
    with pytest.raises(StoreUnavailable, match="imagefs init"):
        store.check()
    with pytest.raises(StoreUnavailable, match="imagefs init"):
        list(store.keys())
    with pytest.raises(StoreUnavailable, match="imagefs init"):
        store.open(store.url_of("a"))


def test_full_quota_is_a_full_store(store: SwiftStore, account: Account) -> None:
    """An upload past the quota is refused and leaves nothing."""
    segments = f"{container_of(store)}_segments"
    # Less than a segment: Swift learns only with a delay how much is used.
    account.ask("POST", segments, X_Container_Meta_Quota_Bytes="10000")
    writer = store.writer("a")
    with pytest.raises(StoreFull):
        store_all(writer, DATA * 2)
    writer.cancel()
    assert list(store.keys()) == []


@pytest.mark.parametrize("key", ["", "a/b", ".a", "a\0", "a" * 300])
def test_keys_are_names(store: SwiftStore, key: str) -> None:
    """What is no name of one level is no key."""
    with pytest.raises(InvalidName):
        store.writer(key)


# What Glance stored


def test_dynamic_large_object_is_read_exactly(store: SwiftStore, account: Account) -> None:
    """A Glance's DLO is read by ranges within and across its segments."""
    account.put_dlo(f"{container_of(store)}/a", DATA, 70_000)
    reader = store.open(store.url_of("a"))
    assert reader.size == len(DATA)
    random_ranges = random.Random(1)
    for _ in range(50):
        at, size = random_ranges.randrange(len(DATA)), random_ranges.randrange(200_000)
        assert reader.read_at(at, size) == DATA[at : at + size]
    assert list(store.keys()) == ["a"]


def test_changed_dynamic_large_object_is_never_mixed(store: SwiftStore, account: Account) -> None:
    """A DLO of which a segment is replaced while it is open is not read on."""
    container = container_of(store)
    account.put_dlo(f"{container}/a", DATA, 70_000)
    reader = store.open(store.url_of("a"))
    account.ask("PUT", f"{container}/a-00002", DATA[:70_000])
    with pytest.raises(DataChanged):
        reader.read_at(0, 100)


def test_dynamic_large_object_is_deleted_with_its_segments(
    store: SwiftStore, account: Account
) -> None:
    """Also where an earlier deletion got no further than the manifest."""
    container = container_of(store)
    account.put_dlo(f"{container}/a", DATA, 70_000)
    account.put_dlo(f"{container}/b", DATA, 70_000)
    store.delete(store.url_of("a"))
    assert account.names(container) == ["b", *(f"b-{n:05d}" for n in range(1, 6))]
    account.ask("DELETE", f"{container}/b")
    store.delete(store.url_of("b"))
    assert account.names(container) == []


def test_dynamic_large_object_of_the_swift_client(store: SwiftStore, account: Account) -> None:
    """Segments under the object's name go with it; what a manifest names besides stays."""
    container = container_of(store)
    for number in range(2):
        account.ask("PUT", f"{container}_segments/a/1/{number}", DATA)
        account.ask("PUT", f"{container}_segments/other/{number}", DATA)
    account.ask("PUT", f"{container}/a", X_Object_Manifest=f"{container}_segments/a/1/")
    account.ask("PUT", f"{container}/b", X_Object_Manifest=f"{container}_segments/other/")
    assert read_all(store, store.url_of("a")) == DATA * 2
    assert list(store.leftovers(-10)) == []
    store.delete(store.url_of("a"))
    store.delete(store.url_of("b"))
    assert account.names(f"{container}_segments") == ["other/0", "other/1"]


def test_dynamic_large_object_is_copied(store: SwiftStore, account: Account) -> None:
    """The copy is one of ours and outlives the original."""
    account.put_dlo(f"{container_of(store)}/a", DATA, 70_000)
    copied = store.copy(store.url_of("a"), "b")
    store.delete(store.url_of("a"))
    assert read_all(store, copied) == DATA


@pytest.mark.parametrize("size", [1000, len(DATA)])
def test_an_object_of_another_container_is_copied(
    swift_server: Swift, tmp_path: Path, size: int
) -> None:
    """By the server, if both have the account's reference; the copy outlives the original."""
    with (
        swift_store(swift_server, tmp_path, reference="ref1") as here,
        swift_store(swift_server, tmp_path, reference="ref1") as there,
        swift_store(swift_server, tmp_path, reference="ref2") as stranger,
    ):
        url = put_by_writer(here)("a", DATA[:size])
        assert there.reaches(url)
        assert not here.reaches(url)
        assert not stranger.reaches(url)
        assert not there.reaches("s3://host/bucket/a")
        copied = there.copy(url, "a")
        here.delete(url)
        assert read_all(there, copied) == DATA[:size]
        with pytest.raises(NotFound):
            there.copy(url, "b")


def test_static_large_object_of_others(store: SwiftStore, account: Account) -> None:
    """An SLO whose segments are anywhere is read, and deleted with them."""
    container = container_of(store)
    for name, part in (("x", DATA[:1000]), ("y", DATA[1000:])):
        account.ask("PUT", f"{container}_segments/{name}", part)
    entries = [{"path": f"/{container}_segments/{name}"} for name in ("x", "y")]
    account.ask("PUT", f"{container}/a?multipart-manifest=put", json.dumps(entries).encode())
    assert read_all(store, store.url_of("a")) == DATA
    store.delete(store.url_of("a"))
    assert account.names(f"{container}_segments") == []


def test_damaged_segment_is_an_error(store: SwiftStore, account: Account) -> None:
    """A segment that is gone or was replaced gives no bytes instead of others."""
    segments = f"{container_of(store)}_segments"
    reader = store.open(put_by_writer(store)("a", DATA))
    first_one = account.names(segments)[0]
    account.ask("PUT", f"{segments}/{first_one}", DATA[1 : SEGMENT + 1])
    with pytest.raises(StoreUnavailable):
        reader.read_at(0, 100)
    account.ask("DELETE", f"{segments}/{first_one}")
    with pytest.raises(StoreUnavailable):
        reader.read_at(0, 100)
    assert reader.read_at(SEGMENT, 1000) == DATA[SEGMENT : SEGMENT + 1000]
