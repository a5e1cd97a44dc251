"""The memory store against the contract, and its limit."""

from __future__ import annotations

import pytest

from catalog.errors import StoreFull
from catalog.stores.base import Usage
from catalog.stores.memory import MemoryStore, MemoryStoreSettings
from tests.kit.stores.contract import DATA, Subject, WriteContract, put_by_writer, read_all


class TestContract(WriteContract):
    @pytest.fixture
    def subject(self) -> Subject:
        """A store without a limit."""
        store = MemoryStore("mem", MemoryStoreSettings())
        return Subject(store, put_by_writer(store), store.url_of("missing"))


def test_full_store_keeps_what_it_has() -> None:
    """A commit past the capacity is refused and changes nothing."""
    store = MemoryStore("mem", MemoryStoreSettings(capacity=len(DATA) + 10))
    put = put_by_writer(store)
    url = put("a", DATA)
    with pytest.raises(StoreFull):
        put("b", DATA)
    assert list(store.keys()) == ["a"]
    assert store.usage() == Usage(len(DATA) + 10, 10)
    put("a", DATA[::-1])
    assert read_all(store, url) == DATA[::-1]
