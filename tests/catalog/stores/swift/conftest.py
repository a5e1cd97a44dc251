"""The account of the stores under test."""

from __future__ import annotations

import pytest

from tests.kit.stores.swift_account import Account
from tests.servers.swift import Swift


@pytest.fixture
def account(swift_server: Swift) -> Account:
    """The account of the stores."""
    return Account(swift_server)
