"""A store with `replicas`: its images are replaced, renamed and deleted like any others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.model.clock import now
from catalog.repository.copies import SETTLE
from catalog.upkeep.replicator import Replicator
from tests.kit.daemon import Daemon
from tests.kit.tools import assert_active, field, run, shell

_SECTIONS = """\
[stores.source]
type = "filesystem"
path = "{0}/source"
replicas = ["other"]
"""


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount with the store `source`, whose images are copied to `other`."""
    state = tmp_path_factory.mktemp("mount")
    with Daemon(state, sections=_SECTIONS.format(state)).mounted() as daemon:
        yield daemon


@pytest.fixture
def image(mount: Daemon, data: bytes, request: pytest.FixtureRequest) -> Path:
    """An image that has its copy."""
    path = mount.path / "source" / request.node.name
    path.write_bytes(data)
    copy_now(mount)
    assert field(path, "stores") == "other,source"
    return path


def copy_now(mount: Daemon) -> None:
    """Make the copies that the mount would make in a minute."""
    catalog = mount.catalog()
    with catalog.write() as repository:
        for wanted in repository.due_copies(now() + SETTLE):
            repository.postpone_copy(wanted, 0, now())
    Replicator(catalog).work()
    catalog.close()


@pytest.mark.parametrize(
    "how",
    [
        'cp -f "$1" "$2"',
        'cp --remove-destination "$1" "$2"',
        'rsync -a "$1" "$2"',
        'cp "$1" "$2.part"; mv -f "$2.part" "$2"',
        'cp "$1" "$(dirname "$2")/../file/new"; mv -f "$(dirname "$2")/../file/new" "$2"',
    ],
    ids=["cp -f", "cp --remove-destination", "rsync", "mv", "mv between stores"],
)
def test_replacing(mount: Daemon, image: Path, data: bytes, tmp_path: Path, how: str) -> None:
    """The old image is in the trash with its copy; the new one has the name and its own."""
    old = field(image, "id")
    new = tmp_path / "new"
    new.write_bytes(b"new" + data)
    shell(how, new, image)
    copy_now(mount)
    assert_active(image, b"new" + data)
    assert field(image, "id") != old
    trashed = image.parent / ".trash" / image.name
    assert (field(trashed, "id"), field(trashed, "stores")) == (old, "other,source")
    assert (mount.state / "other" / old).read_bytes() == data
    assert image.name not in {path.name for path in (mount.path / "other").iterdir()}


def test_deleting_for_good(mount: Daemon, image: Path) -> None:
    """Both stores have nothing of it any more."""
    old = field(image, "id")
    run("rm", "-f", image)
    run("rm", "-f", image.parent / ".trash" / image.name)
    assert not (mount.state / "source" / old).exists()
    assert not (mount.state / "other" / old).exists()


def test_it_is_read_without_the_store_it_was_written_to(
    mount: Daemon, image: Path, data: bytes
) -> None:
    """What the copy is for."""
    (mount.state / "source" / field(image, "id")).unlink()
    assert image.read_bytes() == data


def test_a_link_gives_the_copy_its_name(mount: Daemon, image: Path, data: bytes) -> None:
    """`ln`; then `rm` of the first name leaves the second."""
    there = mount.path / "other" / "linked"
    run("ln", image, there)
    assert there.stat().st_nlink == 2
    run("rm", "-f", image)
    assert_active(there, data)
    assert field(there, "stores") == "other"


def test_a_writer_comes_back_after_the_copy(mount: Daemon, tmp_path: Path, data: bytes) -> None:
    """What a process has committed it may open again, copied or not, as qemu-img does.

    Source: docs/facts.md#qemu-and-libvirt.
    """
    path = mount.path / "source" / "reopened"
    with path.open("wb") as file:
        file.write(b"header")
    copy_now(mount)
    assert field(path, "stores") == "other,source"
    with path.open("r+b") as file:
        file.write(data)
    assert_active(path, data)
    assert field(path, "stores") == "source"
    copy_now(mount)
    assert (mount.state / "other" / field(path, "id")).read_bytes() == data
