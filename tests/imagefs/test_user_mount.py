"""A mount by an ordinary user, for that user alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from catalog.model.image import Image
from catalog.model.tree import Entry
from catalog.tree.vfs import Vfs
from tests.imagefs.closers import BEGIN, DATA, VARIANTS, Variant
from tests.imagefs.watchdog import watchdog
from tests.kit.daemon import COMMAND, Daemon, wait_until
from tests.kit.tools import NOBODY, ROOT

AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
CHOSEN = (
    "exec",
    "exec in a child while the parent goes on",
    "a stopped child with it",
    "exit with it",
    "nobody may look into it",
    "killed",
    "a child is killed",
    "exit with a status",
)


def _as_nobody(*command: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*AS_NOBODY, *map(str, command)], check=False, capture_output=True, cwd="/", timeout=60
    )


@pytest.fixture(scope="module")
def own() -> Iterator[Daemon]:
    """A mount of the user `nobody`, in a folder that it reaches."""
    again = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])"
    if not ROOT or _as_nobody(sys.executable, "-c", again).returncode != 0:
        pytest.skip("needs root, and a program that other users can run")
    state = Path(tempfile.mkdtemp())
    try:
        daemon = Daemon(state / "own")
        for each in (state, *state.rglob("*")):
            os.chown(each, NOBODY, NOBODY)
        with daemon.mounted(*AS_NOBODY, *COMMAND):
            yield daemon
    finally:
        shutil.rmtree(state)


@pytest.fixture(scope="module")
def tree(own: Daemon) -> Iterator[Vfs]:
    """Its catalog: of a killed image, which has mode 0000, only root reads attributes."""
    with closing(Vfs(own.catalog())) as vfs:
        yield vfs


def _image(tree: Vfs, name: str) -> Image:
    found = tree.resolve(f"/file/{name}")
    assert isinstance(found, Entry)
    return found.image


def test_tools_upload(own: Daemon, tree: Vfs, source: Path, data: bytes) -> None:
    """cp tells at its end; nobody else may enter, root neither."""
    copy = own.state / "source"
    shutil.copy(source, copy)
    copy.chmod(0o644)
    path = own.path / "file" / "cp"
    result = _as_nobody("cp", copy, path)
    assert result.returncode == 0, result.stderr
    assert _image(tree, "cp").status == "active"
    assert _as_nobody("cat", path).stdout == data
    with pytest.raises(PermissionError):
        os.listdir(own.path)


@pytest.mark.parametrize("name", CHOSEN)
def test_writers(own: Daemon, tree: Vfs, name: str) -> None:
    """As on root's mount: nothing half is published, nothing whole is lost."""
    variant: Variant = VARIANTS[name]
    path = own.path / "file" / name
    with watchdog(own.path):
        _as_nobody(sys.executable, "-ISc", BEGIN + variant.program, path, 2)
    wait_until(lambda: _image(tree, name).status in ("active", "killed"), "it is decided")
    if variant.reason:
        assert _image(tree, name).status == "killed"
        assert variant.reason in _image(tree, name).message
    else:
        assert _image(tree, name).status == "active"
        assert _as_nobody("cat", path).stdout == DATA
