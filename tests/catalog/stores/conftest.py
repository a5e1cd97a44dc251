"""Servers of the stores, one of each for all tests of a process that need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalog.stores.rbd_pool import Pool
from tests.servers.ceph import S3, Ceph, ceph, radosgw

# The contract's assertions explain themselves as those of a test file do.
pytest.register_assert_rewrite("tests.catalog.stores.contract")


@pytest.fixture(scope="session", name="ceph")
def _ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph cluster with one pool for images."""
    with ceph(tmp_path_factory.mktemp("ceph") / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rgw(ceph: Ceph) -> Iterator[S3]:
    """The S3 server of that cluster."""
    with radosgw(ceph) as server:
        yield server


@pytest.fixture
def pool(ceph: Ceph) -> Iterator[Pool]:
    """The pool of that cluster, empty."""
    yield Pool(ceph)
    ceph.empty()
