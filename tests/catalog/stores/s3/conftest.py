"""The account of the tests that need no other server than Swift."""

from __future__ import annotations

import pytest

from tests.kit.stores.s3_account import Account
from tests.servers.swift import Swift


@pytest.fixture(scope="module")
def account(swift_server: Swift, tmp_path_factory: pytest.TempPathFactory) -> Account:
    """An account of Swift's s3api."""
    folder = tmp_path_factory.mktemp("secrets")
    found = Account(swift_server.s3_endpoint, swift_server.user, swift_server.key, folder)
    found.make_bucket()
    return found
