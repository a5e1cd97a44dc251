"""Tools that read whole folders, one of whose images failed: libvirt, rsync, tar, find."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.tools import ROOT, attempt, run, status
from tests.servers.libvirt import Libvirt, libvirtd


@pytest.fixture(scope="module")
def libvirt(mount: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirt]:
    """A libvirtd that the tests of this module share, and that sees the mount."""
    with libvirtd(tmp_path_factory.mktemp("libvirt")) as found:
        yield found


@pytest.fixture
def good(folder: Path, tmp_path: Path) -> str:
    """The name of an active image in the folder."""
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "good.qcow2", "1M")
    run("cp", tmp_path / "good.qcow2", folder)
    return "good.qcow2"


def _kill_one(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=x.raw", bad, "1M", cwd=tmp_path)
    assert attempt("cp", bad, folder).returncode == 1
    assert status(folder / "bad.qcow2") == "killed"


@pytest.mark.mount_says("is refused")
@pytest.mark.skipif(not ROOT, reason="libvirtd in a namespace of its own needs root")
def test_a_pool_passes_over_a_killed_image(
    libvirt: Libvirt, folder: Path, tmp_path: Path, good: str
) -> None:
    """It goes on at a refresh while it runs, and starts with such an image in it."""
    pool = folder.name
    assert libvirt.virsh("pool-define-as", pool, "dir", "--target", folder).returncode == 0
    assert libvirt.virsh("pool-start", pool).returncode == 0
    assert libvirt.volumes(pool) == [good]
    _kill_one(folder, tmp_path)
    refreshed = libvirt.virsh("pool-refresh", pool)
    assert refreshed.returncode == 0, refreshed.stderr
    assert libvirt.volumes(pool) == [good]
    assert libvirt.virsh("pool-destroy", pool).returncode == 0
    started = libvirt.virsh("pool-start", pool)
    assert started.returncode == 0, started.stderr
    assert libvirt.volumes(pool) == [good]


@pytest.mark.skipif(not ROOT, reason="libvirtd in a namespace of its own needs root")
def test_a_pool_goes_on_while_something_is_uploaded(
    libvirt: Libvirt, folder: Path, good: str
) -> None:
    """What is queued or saving is listed with what is there so far."""
    pool = folder.name
    assert libvirt.virsh("pool-define-as", pool, "dir", "--target", folder).returncode == 0
    (folder / "queued.raw").touch()
    with (folder / "saving.raw").open("wb", buffering=0) as file:
        file.write(b"some data")
        started = libvirt.virsh("pool-start", pool)
        assert started.returncode == 0, started.stderr
        assert libvirt.virsh("pool-refresh", pool).returncode == 0
        assert libvirt.volumes(pool) == [good, "queued.raw", "saving.raw"]


@pytest.mark.mount_says("is refused")
def test_rsync_takes_it_for_vanished(folder: Path, tmp_path: Path, good: str) -> None:
    """The others are copied, and --delete deletes what is not in the folder."""
    _kill_one(folder, tmp_path)
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "old").touch()
    result = attempt("rsync", "-a", "--delete", f"{folder}/", backup)
    assert result.returncode == (24 if ROOT else 23)
    assert os.listdir(backup) == [good]


@pytest.mark.mount_says("is refused")
def test_tar_and_cp_take_the_others(folder: Path, tmp_path: Path, good: str) -> None:
    """Each ends with the status of a warning."""
    _kill_one(folder, tmp_path)
    assert attempt("tar", "-cf", tmp_path / "a.tar", "-C", folder, ".").returncode == 1
    assert f"./{good}\n" in run("tar", "-tf", tmp_path / "a.tar")
    assert attempt("cp", "-r", folder, tmp_path / "copy").returncode == 1
    assert os.listdir(tmp_path / "copy") == [good]


@pytest.mark.mount_says("is refused")
def test_find_lists_it(folder: Path, tmp_path: Path, good: str) -> None:
    """Who looks for failed uploads sees them by their mode."""
    _kill_one(folder, tmp_path)
    assert run("find", folder, "-type", "f", "-perm", "0000") == f"{folder}/bad.qcow2\n"
    run("rm", "-r", "-f", folder)
    assert not folder.exists()
