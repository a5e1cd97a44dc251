"""Who may do what, for a second user of the host (docs/semantics.md#users)."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from tests.kit.daemon import wait_until
from tests.kit.tools import (
    NOBODY,
    ROOT,
    as_nobody,
    assert_active,
    attempt,
    field,
    mode,
    run,
    settled,
    trashed,
)

pytestmark = pytest.mark.skipif(not ROOT, reason="only root can act as a second user")


@pytest.fixture
def image(folder: Path, data: bytes) -> Path:
    """Root's active image."""
    (folder / "image").write_bytes(data)
    return folder / "image"


def _refused(folder: Path, *command: object) -> bool:
    return as_nobody(*command, cwd=folder).returncode != 0


def test_anyone_reads_a_public_image(image: Path, data: bytes) -> None:
    """Mode 0444, as the catalog has it."""
    assert as_nobody("cat", "image", cwd=image.parent).stdout == data


def test_a_private_image_is_its_owner_s(image: Path, data: bytes) -> None:
    """Mode 0400; others get neither its data nor its attributes."""
    os.setxattr(image, "user.image.visibility", b"private")
    wait_until(lambda: mode(image) == 0o400, "the mode follows")
    assert _refused(image.parent, "cat", "image")
    assert _refused(image.parent, "getfattr", "-n", "user.image.status", "image")
    assert image.read_bytes() == data


def test_the_trash_is_listed_to_its_administrator(image: Path) -> None:
    """Others open what is in it by its name, as far as the image lets them."""
    run("rm", "-f", image)
    name = trashed(image)
    assert name.name in os.listdir(name.parent)
    assert _refused(name.parents[1], "ls", ".trash")
    assert not _refused(name.parents[1], "stat", f".trash/{name.name}")


def test_anyone_uploads(folder: Path, data: bytes) -> None:
    """What another user puts in belongs to that user."""
    assert as_nobody("dd", "of=mine", cwd=folder, stdin=data).returncode == 0
    assert_active(folder / "mine", data)
    assert (folder / "mine").stat().st_uid == NOBODY
    assert field(folder / "mine", "owner") == pwd.getpwuid(NOBODY).pw_name
    assert not _refused(folder, "mv", "mine", "still-mine")
    assert not _refused(folder, "touch", "-d", "2001-02-03", "still-mine")
    assert not _refused(folder, "rm", "still-mine")


@pytest.mark.xfail(reason="the kernel lets only root set user.* of a file of mode 0444")
def test_an_owner_sets_properties(folder: Path) -> None:
    """The owner of an active image describes it."""
    as_nobody("dd", "of=mine", cwd=folder, stdin=b"data")
    wait_until(lambda: mode(folder / "mine") == 0o444, "the kernel knows that it is active")
    assert not _refused(folder, "setfattr", "-n", "user.property.a", "-v", "1", "mine")


def test_an_upload_is_its_writer_s(folder: Path) -> None:
    """Mode 0600 while it is written: nobody else reads what is not whole."""
    with (folder / "upload").open("wb", buffering=0) as file:
        file.write(b"data")
        assert mode(folder / "upload") == 0o600
        assert _refused(folder, "cat", "upload")
        assert _refused(folder, "dd", "of=upload", "if=/dev/null")


@pytest.mark.parametrize(
    "command",
    [
        ("rm", "-f", "image"),
        ("mv", "image", "moved"),
        ("mv", "image", "../.trash/"),
        ("dd", "if=/dev/null", "of=image"),
        ("cp", "--remove-destination", "/etc/hostname", "image"),
        ("ln", "image", "../../other/stolen"),
        ("setfattr", "-n", "user.image.visibility", "-v", "private", "image"),
        ("setfattr", "-n", "user.image.owner", "-v", "nobody", "image"),
        ("setfattr", "-n", "user.image.status", "-v", "deactivated", "image"),
        ("touch", "-d", "2001-02-03", "image"),
        ("truncate", "-s", "0", "image"),
    ],
    ids=" ".join,
)
def test_nobody_changes_another_s_image(image: Path, data: bytes, command: tuple[str, ...]) -> None:
    """Folders are sticky, as /tmp is: only the owner takes away."""
    before = (image.stat().st_mtime_ns, field(image, "id"), field(image, "visibility"))
    assert _refused(image.parent, *command)
    assert_active(image, data)
    assert (image.stat().st_mtime_ns, field(image, "id"), field(image, "visibility")) == before


def test_folders(folder: Path) -> None:
    """Anyone makes folders; only the owner removes or renames them."""
    (folder / "roots").mkdir()
    assert not _refused(folder, "mkdir", "mine")
    assert (folder / "mine").stat().st_uid == NOBODY
    assert not _refused(folder, "rmdir", "mine")
    assert _refused(folder, "rmdir", "roots")
    assert _refused(folder, "mv", "roots", "mine")


def test_a_deactivated_image(image: Path, data: bytes) -> None:
    """Nobody but an administrator opens it; who has it open reads on."""
    reader = subprocess.Popen(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--",
         "sh", "-c", "exec 3< image; echo; read x; cat <&3"],
        cwd=image.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"\n"
    os.setxattr(image, "user.image.status", b"deactivated")
    assert _refused(image.parent, "cat", "image")
    assert image.read_bytes() == data
    assert reader.communicate(b"\n")[0] == data
    os.setxattr(image, "user.image.status", b"active")
    wait_until(lambda: not _refused(image.parent, "cat", "image"), "it is open to all again")


def test_the_trash(image: Path, data: bytes) -> None:
    """What is deleted is read as before, and restored by its owner or an administrator only."""
    name, hidden = "trash-of-root", "private-of-root"
    image.rename(image.parent / name)
    run("cp", image.parent / name, image.parent / hidden)
    os.setxattr(image.parent / hidden, "user.image.visibility", b"private")
    for each in (name, hidden):
        (image.parent / each).unlink()
    trash = trashed(image).parent
    assert not _refused(trash, "cat", name)
    assert _refused(trash, "cat", hidden)
    assert _refused(trash, "rm", "-f", name)
    assert _refused(trash, "mv", name, f"../{image.parent.name}/")
    assert trashed(image.parent / name).read_bytes() == data


def test_one_s_own_trash(folder: Path) -> None:
    """A user deletes; the trash changes only by the administrator, who restores."""
    as_nobody("dd", "of=own-trash", cwd=folder, stdin=b"data")
    assert not _refused(folder, "rm", "own-trash")
    assert _refused(folder, "mv", "../.trash/own-trash", ".")
    run("mv", folder / "../.trash/own-trash", folder)
    assert settled(folder / "own-trash") == "active"
    assert (folder / "own-trash").stat().st_uid == NOBODY


def test_a_process_without_a_name(folder: Path) -> None:
    """A uid the host has no name for owns what it makes, by its number."""
    user = ("setpriv", "--reuid=123456", "--regid=123456", "--clear-groups", "--")
    assert attempt(*user, "dd", "of=a", cwd=folder, stdin=b"data").returncode == 0
    assert (folder / "a").stat().st_uid == 123456
    assert attempt(*user, "rm", "-f", "a", cwd=folder).returncode == 0


def test_a_writer_of_another_user_is_told_apart(folder: Path) -> None:
    """Nobody's shell holds its file over several commands: root's daemon sees that."""
    script = "{ echo one; /bin/echo two; getfattr --only-values -n user.image.status a >&2; } > a"
    result = as_nobody("sh", "-c", script, cwd=folder)
    assert result.stderr == b"saving"
    assert_active(folder / "a", b"one\ntwo\n")
