"""What every test obeys: a warning or worse in the log is a failure, unless expected.

And what many of them copy in.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401  (its hook into trio fails after `gc.freeze`)
import pytest
from argon2 import PasswordHasher

from catalog.catalog import Catalog
from catalog.rules import users
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit import databases, marks, statements
from tests.kit.catalog import new_catalog, settings_at, some_bytes
from tests.servers.ceph import S3, Ceph, ceph, radosgw
from tests.servers.cinder import Cinder, cinder
from tests.servers.databases import STARTS, DatabaseServer, home
from tests.servers.swift import Swift, swift

# The contract's assertions explain themselves as those of a test file do.
pytest.register_assert_rewrite("tests.kit.stores.contract")

statements.share()

# Started in the background of a shell, SIGINT would be ignored, by all we start as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """In `make fast` a password is hashed in no time; otherwise it takes what users wait for."""
    if "not stress" in config.option.markexpr:
        users._HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the database server that all tests use, if it is to be one."""
    starts_others = getattr(session.config.option, "numprocesses", None)
    if databases.KIND != "sqlite" and not starts_others:
        databases.shared()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by what its fixtures start, before `-m` selects."""
    for item in items:
        marks.mark(item)
        if databases.KIND != "sqlite" and item.get_closest_marker("sqlite"):
            item.add_marker(pytest.mark.skip(reason="is about SQLite itself"))


def pytest_collection_finish() -> None:
    """Take what the test files are made of out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Hold each test to its marks."""
    marks.begin(item)


@pytest.fixture(autouse=True)
def log_is_clean(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail the test on each unexpected log record, and on each expected one that is missing."""
    yield
    patterns = [str(mark.args[0]) for mark in request.node.iter_markers("expect_log")]
    messages = [
        record.getMessage()
        for phase in ("setup", "call")
        for record in caplog.get_records(phase)
        if record.levelno >= logging.WARNING
    ]
    allowed = patterns + [str(mark.args[0]) for mark in request.node.iter_markers("may_log")]
    unexpected = [text for text in messages if not any(re.search(p, text) for p in allowed)]
    missing = [p for p in patterns if not any(re.search(p, text) for text in messages)]
    assert not unexpected, f"logged unexpectedly: {unexpected}"
    assert not missing, f"expected in the log and not there: {missing}"


@pytest.fixture
def data() -> bytes:
    """The content of a small image: not a whole number of pages."""
    return some_bytes(300_001)


@pytest.fixture
def source(tmp_path: Path, data: bytes) -> Path:
    """A local file with that content, and a modification time in the past."""
    path = tmp_path / "source.img"
    path.write_bytes(data)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    return path


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """A Swift with tempauth and s3api, for the tests of the drivers and of the mount."""
    with swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


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


@pytest.fixture(scope="session")
def cinder_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cinder]:
    """A Cinder over a Ceph and a Keystone of its own, for the same tests; if it is asked for.

    Five servers and a broker, each request through all of them: ten minutes on two cores.
    """
    if not os.environ.get("IMAGEFS_CINDER"):
        pytest.skip("needs ten minutes for Cinder: make test-cinder")
    folder = tmp_path_factory.mktemp("cinder")
    with ceph(folder / "ceph") as cluster, cinder(folder, cluster) as server:
        yield server


@pytest.fixture(scope="module", params=sorted(STARTS))
def database_server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A database server on loopback: each kind in turn."""
    with home() as folder, STARTS[request.param](folder / "server") as started:
        yield started


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Stores `file` and `other` below tmp_path, and `memory`."""
    return settings_at(tmp_path)


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Catalog]:
    """A new catalog."""
    catalog = new_catalog(settings)
    yield catalog
    catalog.close()


@pytest.fixture
def vfs(catalog: Catalog) -> Vfs:
    """The tree of that catalog."""
    return Vfs(catalog)
