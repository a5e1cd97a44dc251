"""A mount that does not see every program: in a pid namespace of its own, or by hidepid."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.daemon import COMMAND, DEADLINE, Daemon, wait_until
from tests.kit.tools import assert_active, field, run, settled, status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *COMMAND)


@pytest.fixture
def contained(daemon: Callable[..., Daemon]) -> Daemon:
    """A mount that sees only the processes beside it."""
    made = daemon()
    made.start(*CONTAINER)
    return made


def _process(contained: Daemon) -> int:
    """The mount's own process, as this namespace counts."""
    assert contained.process is not None
    pid = contained.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _inside(contained: Daemon, *command: object) -> list[str]:
    target = str(_process(contained))
    return ["nsenter", "--target", target, "--pid", "--mount", "--", *map(str, command)]


def _from_outside(contained: Daemon, path: Path) -> Path:
    return Path(f"/proc/{_process(contained)}/root{path}")


def test_programs_beside_it_upload(contained: Daemon, tmp_path: Path, data: bytes) -> None:
    """cp, and qemu-img, which comes back for the data; one that is killed publishes nothing."""
    source, folder = tmp_path / "source", contained.path / "file"
    source.write_bytes(data)
    run(*_inside(contained, "cp", source, folder / "a"))
    run(*_inside(contained, "qemu-img", "convert", "-O", "qcow2", source, folder / "b"))
    outside = _from_outside(contained, folder)
    assert_active(outside / "a", data)
    assert settled(outside / "b") == "active"
    killed = '{ cat "$1"; kill -9 $$; } > "$2"'
    code = subprocess.run(
        _inside(contained, "sh", "-c", killed, "sh", source, folder / "c"), check=False
    ).returncode
    assert code != 0
    wait_until(lambda: status(outside / "c") == "killed", "it is killed")
    assert "was killed by signal 9" in field(outside / "c", "message")


def test_programs_outside_of_it_only_read(contained: Daemon, tmp_path: Path, data: bytes) -> None:
    """It could not tell whether they were killed: refused at open, and said once in the log."""
    source, folder = tmp_path / "source", contained.path / "file"
    source.write_bytes(data)
    run(*_inside(contained, "cp", source, folder / "a"))
    outside = _from_outside(contained, folder)
    assert (outside / "a").read_bytes() == data
    for name in ("b", "c"):
        with pytest.raises(PermissionError) as caught:
            os.open(outside / name, os.O_WRONLY | os.O_CREAT)
        assert caught.value.errno == errno.EACCES
    assert sorted(os.listdir(outside)) == ["a"]
    run(*_inside(contained, "touch", folder / "d"))
    with pytest.raises(PermissionError):
        os.truncate(outside / "d", 100)
    assert contained.log.read_text().count("a program that the mount does not see") == 1


def test_it_stops(contained: Daemon) -> None:
    """Told to, as any other."""
    os.kill(_process(contained), 15)
    assert contained.process is not None
    assert contained.process.wait(DEADLINE) == 0


HIDING = """
mount -t proc -o hidepid=2,gid=65533 proc /proc
exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace -- "$@"
"""


def test_programs_that_proc_hides_only_read(daemon: Callable[..., Daemon], data: bytes) -> None:
    """Nothing is made for one, and nothing half is published; other mounts go on."""
    made = daemon()
    with made.mounted():
        (made.path / "file" / "a").write_bytes(data)
    made.start("unshare", "--mount", "sh", "-ec", HIDING, "sh", *COMMAND)
    assert made.process is not None
    folder = Path(f"/proc/{made.process.pid}/root{made.path}/file")
    assert (folder / "a").read_bytes() == data
    with pytest.raises(PermissionError):
        (folder / "b").write_bytes(data)
    assert os.listdir(folder) == ["a"]
