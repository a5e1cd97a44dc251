"""What the tests of the drivers share besides the servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.stores.swift.store import SwiftStore
from tests.kit.stores.rbd_pool import Pool
from tests.kit.stores.swift_account import swift_store
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.network.breaking_proxy import Proxy, proxy
from tests.servers.swift import Swift


@pytest.fixture
def pool(ceph: Ceph) -> Iterator[Pool]:
    """The pool of that cluster, empty."""
    yield Pool(ceph)
    ceph.empty()


@pytest.fixture
def between(swift_server: Swift) -> Iterator[Proxy]:
    """A proxy before Swift."""
    with proxy(swift_server.port) as running:
        yield running


@pytest.fixture
def behind(between: Proxy, swift_server: Swift, tmp_path: Path) -> Iterator[SwiftStore]:
    """A store that reaches Swift through the proxy, and waits a second for it."""
    url = f"{between.url}/auth/v1.0"
    with swift_store(
        swift_server, tmp_path, auth_url=url, timeout=2, policy={"attempts": 2}
    ) as store:
        yield store


@pytest.fixture(name="cinder")
def _cinder(cinder_server: Cinder) -> Iterator[Cinder]:
    """A Cinder without volumes."""
    yield cinder_server
    cinder_server.empty()
