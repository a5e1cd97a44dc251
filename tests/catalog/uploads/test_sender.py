"""What is sent to a real Swift while a file is written: never other bytes, and nothing left."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from catalog.errors import NotFound, StoreUnavailable
from catalog.stores.base import Store
from catalog.stores.registry import open_store
from catalog.stores.swift.store import SwiftStore
from catalog.uploads.sender import Sender
from tests.kit.daemon import wait_until
from tests.kit.images.written import DATA, WRITERS, Written, at_will, in_order
from tests.kit.stores.contract import put_by_writer, read_all
from tests.kit.stores.swift_account import Account, container_of, settings, swift_store
from tests.servers.network.breaking_proxy import Fault, Proxy, always, first, never, proxy
from tests.servers.swift import Swift

MIB = 1 << 20
KEY = "image"


class Sent(Written):
    """A file on its way to a store, and what the server has of it."""

    def __init__(self, path: Path, store: Store, account: Account, container: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.sender = Sender(store, KEY, path, lambda: None, begin=2 * MIB, step=MIB)
        self.store = store
        self._account = account
        self._container = container
        super().__init__(fd, self.sender)

    def segments(self) -> list[str]:
        """On the server."""
        return self._account.names(f"{self._container}_segments")

    def uploads(self) -> set[str]:
        """That the segments on the server belong to."""
        return {name.rpartition("/")[0] for name in self.segments()}

    def stored(self) -> bytes:
        """Complete the file, store it and read it."""
        self.sender.finish(os.fstat(self.fd).st_size)
        with pytest.raises(NotFound):
            self.store.stat(self.store.url_of(KEY))
        return read_all(self.store, self.sender.commit())

    def has_begun(self) -> None:
        """Wait until the server has a part."""
        wait_until(self.segments, "a part is sent")


@pytest.fixture
def account(swift_server: Swift) -> Account:
    """The bare API."""
    return Account(swift_server)


@pytest.fixture
def plain(swift_server: Swift, tmp_path: Path) -> Iterator[SwiftStore]:
    """A store whose parts are as small as Swift hands out at full speed."""
    with swift_store(swift_server, tmp_path / "plain", segment_size=MIB) as store:
        yield store


@pytest.fixture
def file(plain: SwiftStore, account: Account, tmp_path: Path) -> Iterator[Sent]:
    """An empty file of that store."""
    with _sent(tmp_path / "file", plain, account, container_of(plain)) as sent:
        yield sent


@pytest.fixture
def between(swift_server: Swift) -> Iterator[Proxy]:
    """A proxy before the server."""
    with proxy(swift_server.port) as found:
        yield found


@pytest.fixture
def behind(
    swift_server: Swift, plain: SwiftStore, account: Account, between: Proxy, tmp_path: Path
) -> Iterator[Sent]:
    """The same container behind the proxy, with the policy of a store."""
    section = settings(
        swift_server,
        tmp_path / "behind",
        container=container_of(plain),
        segment_size=MIB,
        auth_url=f"{between.url}/auth/v1.0",
        timeout=1,
        policy={"attempts": 3},
    )
    with (
        closing(open_store("sw", section)) as store,
        _sent(tmp_path / "behind.img", store, account, container_of(plain)) as sent,
    ):
        yield sent


@contextmanager
def _sent(path: Path, store: Store, account: Account, container: str) -> Iterator[Sent]:
    sent = Sent(path, store, account, container)
    yield sent
    sent.sender.drop()
    os.close(sent.fd)


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_stored_is_the_file(file: Sent, write: Callable[[Written], bytes]) -> None:
    """Whatever the order of writes, the object has the bytes of the finished file."""
    data = write(file)
    assert file.stored() == data
    assert len(file.uploads()) == (len(data) > MIB)


@pytest.mark.parametrize("seed", range(5))
def test_random_writes_and_cuts(file: Sent, seed: int) -> None:
    """Like fsx: the object is what a plain buffer has."""
    data = at_will(file, random.Random(seed), 8 * MIB)
    assert file.stored() == data


def test_parts_are_there_before_the_file_is_complete(file: Sent) -> None:
    """All but the last parts go out behind the writer, and only once."""
    in_order(file)
    wait_until(lambda: len(file.segments()) >= len(DATA) // MIB - 2, "parts are sent")
    early = set(file.segments())
    assert file.stored() == DATA
    assert early < set(file.segments())
    assert len(file.uploads()) == 1


@pytest.mark.parametrize("change", ["header", "cut", "cut and grown"])
def test_change_behind_what_was_sent_voids_it(file: Sent, change: str) -> None:
    """It is taken back at once, and the file is sent again from its beginning."""
    in_order(file)
    file.has_begun()
    if change == "header":
        file.write(0, b"HEADER")
        data = b"HEADER" + DATA[6:]
    else:
        file.truncate(MIB // 2)
        data = DATA[: MIB // 2]
    if change == "cut and grown":
        file.write(4 * MIB, b"end")
        data = data.ljust(4 * MIB, b"\0") + b"end"
    wait_until(lambda: not file.segments(), "parts are removed")
    assert file.stored() == data


def test_dropped_file_leaves_nothing(file: Sent) -> None:
    """Nor is anything sent of what is written afterwards, before it is complete."""
    in_order(file)
    file.has_begun()
    file.sender.drop()
    file.sender.drop()
    assert file.segments() == []
    in_order(file)
    assert file.segments() == []
    assert file.stored() == DATA


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(cut_request=1000), Fault(cut=-1), Fault(stall=-1)], ids=repr
)
def test_failure_of_what_was_early_is_none_of_the_file(
    behind: Sent, between: Proxy, fault: Fault
) -> None:
    """The file is sent again when it is complete; nothing is left of the first attempt."""
    between.set_plan(first(3, fault, "PUT"))
    in_order(behind)
    assert behind.stored() == DATA
    between.resume()
    assert len(behind.uploads()) == 1


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(cut=-1), Fault(stall=-1)], ids=repr)
def test_failure_for_good_is_told_and_leaves_nothing(
    behind: Sent, between: Proxy, fault: Fault
) -> None:
    """When it cannot be sent again either, the error is told."""
    between.set_plan(always(fault, "PUT"))
    in_order(behind)
    with pytest.raises(StoreUnavailable):
        behind.stored()
    between.set_plan(never)
    between.resume()
    behind.sender.drop()
    assert behind.segments() == []


def test_drop_does_not_wait_for_a_server_that_hangs(behind: Sent, between: Proxy) -> None:
    """It ends when the store's time-out ends what is under way."""
    between.set_plan(always(Fault(stall=-1), "PUT"))
    in_order(behind)
    wait_until(lambda: between.body_received > MIB, "parts are on their way")
    behind.sender.drop()
    between.set_plan(never)
    between.resume()
    assert behind.segments() == []


def test_waiting_for_the_writer_takes_no_turn(
    swift_server: Swift, plain: SwiftStore, account: Account, tmp_path: Path
) -> None:
    """A store that is asked for one thing at a time answers others while a file grows slowly."""
    section = settings(
        swift_server,
        tmp_path / "one",
        container=container_of(plain),
        segment_size=MIB,
        policy={"requests": 1},
    )
    with (
        closing(open_store("sw", section)) as store,
        _sent(tmp_path / "slow", store, account, container_of(plain)) as sent,
    ):
        in_order(sent)
        sent.has_begun()
        other = put_by_writer(store)("other", DATA[:1000])
        assert read_all(store, other) == DATA[:1000]
        assert sent.stored() == DATA
