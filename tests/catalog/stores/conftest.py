"""What the tests of the drivers share besides the servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalog.stores.rbd_pool import Pool
from tests.servers.ceph import Ceph

# The contract's assertions explain themselves as those of a test file do.
pytest.register_assert_rewrite("tests.catalog.stores.contract")


@pytest.fixture
def pool(ceph: Ceph) -> Iterator[Pool]:
    """The pool of that cluster, empty."""
    yield Pool(ceph)
    ceph.empty()
