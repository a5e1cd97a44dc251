"""Real servers for real clients: one `imagefs dav` for each module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.dav.service import Service, service
from tests.dav.wire import make_certificate
from tests.imagefs.tools import some_bytes

_numbers = count()


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that lets anybody write."""
    with service(tmp_path_factory.mktemp("open")) as running:
        yield running


@pytest.fixture(scope="module")
def secure_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with TLS that lets in one user."""
    state = tmp_path_factory.mktemp("secure")
    with service(state / "state", make_certificate(state)) as running:
        yield running


@pytest.fixture
def folder(open_service: Service, request: pytest.FixtureRequest) -> str:
    """The path of a folder of its own on the open server."""
    path = f"/file/{request.node.originalname}-{next(_numbers)}"
    assert open_service.ask(f"MKCOL {path}").status == 201
    return path


@pytest.fixture
def data() -> bytes:
    """The content of a small image: not a whole number of blocks."""
    return some_bytes(300_001)


@pytest.fixture
def source(tmp_path: Path, data: bytes) -> Path:
    """A local file with that content, and a modification time in the past."""
    path = tmp_path / "source.img"
    path.write_bytes(data)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path
