"""A mount whose process is stopped: nobody waits for it for ever, and it can be taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.errors import NotFound
from catalog.service.mounts import Mounted
from imagefs import mountpoint
from tests.imagefs.watchdog import aborting
from tests.kit.daemon import COMMAND, DEADLINE, Daemon, wait_until

ANSWERED = DEADLINE + 10
"""Seconds a command may take; they tell themselves much earlier."""


@pytest.fixture
def hung(daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A mount that is stopped; whatever the test does, its connection is aborted in the end."""
    mount = daemon()
    mount.start()
    assert mount.process is not None
    with aborting(mount.path) as let_go:
        watchdog = threading.Timer(3 * ANSWERED, let_go)
        watchdog.start()
        mount.process.send_signal(signal.SIGSTOP)
        try:
            yield mount
        finally:
            watchdog.cancel()
            let_go()
            mount.process.send_signal(signal.SIGCONT)


def imagefs(mount: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on that catalog, with the mount in $PATH."""
    return subprocess.run(
        [*COMMAND, "--config", str(mount.config), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWERED,
        env=os.environ | {"PATH": f"{mount.path}/file:{os.environ['PATH']}"},
    )


def test_umount_tells_that_it_hangs(hung: Daemon) -> None:
    """And how to take it away; it is still there then."""
    result = imagefs(hung, "umount", str(hung.path))
    assert result.returncode == 5
    assert f"imagefs umount --force {hung.path}" in result.stderr
    assert mountpoint.is_mounted(hung.path)


def test_umount_by_force(hung: Daemon) -> None:
    """What waits for the mount goes on with an error, and the place is free again."""
    with subprocess.Popen(["ls", hung.path / "file"], stderr=subprocess.DEVNULL) as reader:
        result = imagefs(hung, "umount", "--force", str(hung.path))
        assert result.returncode == 0, result.stderr
        assert reader.wait(DEADLINE) != 0
    assert not mountpoint.is_mounted(hung.path)
    assert os.listdir(hung.path) == []


def test_force_takes_no_other_mount(
    daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives the number of a mount that has just gone to the next one."""
    mount = daemon()
    mount.start()
    found = mountpoint.find(mount.path)
    assert found is not None
    gone = Mounted("/mnt/gone", found.connection)
    seen = iter([gone])
    look = mountpoint.find
    monkeypatch.setattr(mountpoint, "find", lambda path: next(seen, None) or look(path))
    with pytest.raises(NotFound):
        mountpoint.unmount(Path(gone.path), force=True)
    assert os.listdir(mount.path)


def test_lazy_umount(hung: Daemon) -> None:
    """It takes the mount out of the tree and asks it nothing."""
    assert imagefs(hung, "umount", "--lazy", str(hung.path)).returncode == 0
    assert not mountpoint.is_mounted(hung.path)


def test_umount_ends_when_asked(hung: Daemon) -> None:
    """SIGTERM ends the command at once, whatever it waits for."""
    command = [*COMMAND, "--config", str(hung.config), "umount", str(hung.path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:

        def is_asking() -> bool:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            return bool(children.read_text().split())

        wait_until(is_asking, "the mount is asked")
        process.terminate()
        assert process.wait(DEADLINE) == 143


def test_mount_onto_it(hung: Daemon) -> None:
    """Refused with the same advice."""
    result = imagefs(hung, "mount", str(hung.path))
    assert result.returncode == 5
    assert "umount --force" in result.stderr


def test_doctor_tells_of_it(hung: Daemon) -> None:
    """And goes on with the rest."""
    result = imagefs(hung, "doctor")
    assert result.returncode == 1
    assert f"fail  {hung.path}: does not answer" in result.stdout
    assert "clock" in result.stdout
