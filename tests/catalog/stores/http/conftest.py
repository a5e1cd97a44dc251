"""A web server on loopback, and the store that reads from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http.store import HttpStore
from tests.servers.scripted import WebServer, nginx


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """One nginx for all tests of this file."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture
def store() -> Iterator[HttpStore]:
    """A store that may talk to this host's 127.0.0.1."""
    store = HttpStore("web", HttpStoreSettings(allow_hosts=("127.0.0.1",), timeout=5))
    yield store
    store.close()
