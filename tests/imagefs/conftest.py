"""A real mount: a catalog of its own and a daemon in another process for each module."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.imagefs.daemon import Daemon, wait_until
from tests.imagefs.tools import some_bytes


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the one mark of these tests."""
    config.addinivalue_line(
        "markers", "mount_says(pattern): the mount must log a line that matches the pattern"
    )


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount that the tests of a module share."""
    if not os.path.exists("/dev/fuse"):
        pytest.fail("these tests mount: they need /dev/fuse")
    daemon = Daemon(tmp_path_factory.mktemp("mount"))
    daemon.start()
    try:
        yield daemon
        assert daemon.stop() == 0, daemon.log.read_text()
        assert daemon.staged() == []
    finally:
        assert daemon.process is not None
        if daemon.process.poll() is None:
            daemon.kill()
        daemon.unmount()


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
        if each.process is not None and each.process.poll() is None:
            each.kill()
        each.unmount()


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
