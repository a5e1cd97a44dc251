"""Servers, one for each module: in this process, and `imagefs dav` for real clients."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.dav.server import Served, serving
from tests.kit.daemon import Daemon
from tests.kit.service import PASSWORD, USER, Service, service
from tests.kit.wire import make_certificate

_numbers = count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server in this process with an empty catalog; anybody may write."""
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that lets anybody write."""
    with service(Daemon(tmp_path_factory.mktemp("open"))) as running:
        yield running


@pytest.fixture(scope="module")
def secure_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with TLS that lets in one user."""
    state = tmp_path_factory.mktemp("secure")
    catalog = Daemon(state / "state")
    catalog.command("user", "add", USER, stdin=f"{PASSWORD}\n")
    with service(catalog, "none", make_certificate(state)) as running:
        yield running


@pytest.fixture
def folder(open_service: Service, request: pytest.FixtureRequest) -> str:
    """The path of a folder of its own on the open server."""
    path = f"/file/{request.node.originalname}-{next(_numbers)}"
    assert open_service.ask(f"MKCOL {path}").status == 201
    return path
