"""Each test here runs on every frontend: the same steps, the same outcome."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalog.tree.vfs import Vfs
from tests.behaviour.trees import MountTree, Tree, VfsTree, new_folders
from tests.kit.daemon import Daemon


@pytest.fixture(scope="module", params=["vfs", pytest.param("mount", marks=pytest.mark.mount)])
def tree(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tree]:
    """A catalog with the stores `file` and `other`, through one of the frontends."""
    daemon = Daemon(tmp_path_factory.mktemp("behaviour"))
    if request.param == "vfs":
        yield from _vfs_tree(daemon)
    else:
        yield from _mount_tree(daemon)


def _vfs_tree(daemon: Daemon) -> Iterator[Tree]:
    vfs = Vfs(daemon.catalog())
    yield VfsTree(vfs)
    vfs.close()


def _mount_tree(daemon: Daemon) -> Iterator[Tree]:
    with daemon.mounted():
        yield MountTree(daemon.path)
    assert daemon.unusual() == []


@pytest.fixture
def name(tree: Tree) -> str:
    """The name of a folder of this test's own, in both stores."""
    return new_folders(tree)
