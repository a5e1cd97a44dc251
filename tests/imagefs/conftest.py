"""A real mount: a catalog of its own and a daemon in another process for each module."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.imagefs.faulty import Remote, remote_mount
from tests.kit.daemon import Daemon, wait_until
from tests.servers.swift import Swift


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the one mark of these tests."""
    config.addinivalue_line(
        "markers", "mount_says(pattern): the mount must log a line that matches the pattern"
    )
    config.addinivalue_line("markers", "mount_may_say(pattern): it may")


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount that the tests of a module share."""
    if not os.path.exists("/dev/fuse"):
        pytest.fail("these tests mount: they need /dev/fuse")
    with Daemon(tmp_path_factory.mktemp("mount")).mounted() as daemon:
        yield daemon
    assert daemon.staged() == []


@pytest.fixture(scope="session")
def remote(swift_server: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A mount with remote stores, and proxies that break what passes; a test leaves it whole."""
    with remote_mount(swift_server, tmp_path_factory.mktemp("remote")) as found:
        yield found


@pytest.fixture
def folder(mount: Daemon, request: pytest.FixtureRequest) -> Path:
    """A folder of its own in the store `file`."""
    number = len(list((mount.path / "file").iterdir()))
    path = mount.path / "file" / f"{number}-{request.node.originalname}"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def mount_log_is_clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail on each unusual line of the shared mount's log, and on each that is missing."""
    if "mount" not in request.fixturenames:
        yield
        return
    mount: Daemon = request.getfixturevalue("mount")
    before = len(mount.unusual())
    patterns = [str(mark.args[0]) for mark in request.node.iter_markers("mount_says")]
    expected = request.node.parent.stash.setdefault(_EXPECTED, [])
    expected += patterns
    expected += [str(mark.args[0]) for mark in request.node.iter_markers("mount_may_say")]
    yield

    def missing() -> list[str]:
        lines = mount.unusual()[before:]
        return [p for p in patterns if not any(re.search(p, line) for line in lines)]

    wait_until(lambda: not missing(), f"the mount says one of {patterns}")
    # A line may come after the tool that caused it has ended: also those of the tests before.
    lines = mount.unusual()[before:]
    unexpected = [line for line in lines if not any(re.search(p, line) for p in expected)]
    assert not unexpected, f"the mount said: {unexpected}"


_EXPECTED = pytest.StashKey[list[str]]()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Make mounts for one test, which may do to them what it likes."""
    made: list[Daemon] = []

    def make(*, catalog: str = "", drain_timeout: int = 10) -> Daemon:
        state = tmp_path / f"mount{len(made)}"
        made.append(Daemon(state, catalog=catalog, drain_timeout=drain_timeout))
        return made[-1]

    yield make
    for each in made:
        each.end()
