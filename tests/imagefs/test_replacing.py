"""Tools that delete an image and write it anew, and fail: the old one is back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.daemon import DEADLINE, Daemon, wait_until
from tests.kit.tools import MIB, assert_active, attempt, field, run, shell, some_bytes, status

Tool = Callable[[Path, Path], list[object]]

TOOLS: dict[str, Tool] = {
    "cp -f": lambda source, target: ["cp", "-f", source, target],
    "cp --remove": lambda source, target: ["cp", "--remove-destination", source, target],
    "install": lambda source, target: ["install", source, target],
    "tar": lambda source, target: [
        *("bash", "-c", 'set -o pipefail; tar c -C "$1" "$2" | tar x -C "$3"', "bash"),
        *(source.parent, source.name, target.parent),
    ],
    "unzip": lambda source, target: [
        *("sh", "-ec", 'cd "$1"; zip -q -0 image.zip image; unzip -q -o image.zip -d "$2"', "sh"),
        *(source.parent, target.parent),
    ],
    "rm and cat": lambda source, target: [
        "sh",
        "-c",
        'rm "$2"; cat "$1" > "$2"',
        "sh",
        source,
        target,
    ],
}


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    """A file that the format gate refuses."""
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", path, "1G")
    return path


@pytest.fixture
def old(folder: Path, data: bytes) -> Path:
    """A good image."""
    (folder / "image").write_bytes(data)
    return folder / "image"


def is_back(image: Path, number: str) -> Callable[[], bool]:
    """Whether the name stands for the image of that id; the kernel hears of it in a moment."""
    return lambda: field(image, "id") == number


@contextmanager
def writing(target: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A tool that replaces `target` with what it reads from us, in the middle of that."""
    before = field(target, "id")
    with subprocess.Popen([*command, "/dev/stdin", target], stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(some_bytes(MIB))
        writer.stdin.flush()
        wait_until(lambda: field(target, "id") not in ("", before), "the old one is deleted")
        wait_until(lambda: status(target) == "saving", "the new one is written")
        yield writer
        writer.kill()


@pytest.mark.mount_says("backing file")
@pytest.mark.parametrize("name", TOOLS)
def test_a_refused_replacement(old: Path, data: bytes, refused: Path, name: str) -> None:
    """The old image has its name, as it was; not all tools tell that close(2) failed."""
    number = field(old, "id")
    attempt(*TOOLS[name](refused, old))
    wait_until(lambda: field(old, "status") == "active", "the new one is refused")
    wait_until(is_back(old, number), "the old one is back")
    assert_active(old, data)


@pytest.mark.mount_says("was killed by signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_writer_that_is_killed(old: Path, data: bytes, number: signal.Signals) -> None:
    """In the middle of `cp -f`."""
    before = field(old, "id")
    with writing(old, "cp", "-f") as writer:
        writer.send_signal(number)
        writer.wait(DEADLINE)
        wait_until(is_back(old, before), "the old one is back")
    assert_active(old, data)


@pytest.mark.mount_says("a replacement failed")
@pytest.mark.mount_says("backing file")
def test_a_script_that_cleans_up(old: Path, data: bytes, refused: Path) -> None:
    """`cp … || rm -f …`: what it removes is not its own half file any more."""
    before = field(old, "id")
    shell('cp -f "$1" "$2" || rm -f "$2" || true', refused, old)
    wait_until(is_back(old, before), "the old one is back")
    assert_active(old, data)


@pytest.mark.mount_says("a replacement failed")
@pytest.mark.mount_says("backing file")
def test_soon_the_name_can_be_deleted(old: Path, refused: Path) -> None:
    """By `rm`, and so by the next `cp -f`; `imagefs delete` need not wait (see the catalog's)."""
    attempt("cp", "-f", refused, old)
    wait_until(lambda: attempt("rm", "-f", old).returncode == 0, "rm is obeyed")
    assert not old.exists()


@pytest.mark.mount_says("backing file")
def test_it_is_tried_again(
    old: Path, refused: Path, source: Path, data: bytes, mount: Daemon
) -> None:
    """With what is good it succeeds, and the old image goes to the trash."""
    before = field(old, "id")
    attempt("cp", "-f", refused, old)
    wait_until(lambda: attempt("cp", "-f", source, old).returncode == 0, "cp succeeds")
    assert_active(old, data)
    assert field(old, "id") != before
    assert "pending_delete" in mount.command("show", before)


def test_a_second_writer_takes_over(old: Path, source: Path, data: bytes) -> None:
    """`cp -f` while another one writes: the second one's image is there."""
    before = field(old, "id")
    with writing(old, "cp", "-f"):
        first = field(old, "id")
        run("cp", "-f", source, old)
    assert field(old, "id") not in (before, first)
    assert_active(old, data)


@pytest.mark.mount_says("was killed by signal")
def test_when_both_fail(old: Path, data: bytes) -> None:
    """The image that was good before the first one is back after the second."""
    before = field(old, "id")
    with writing(old, "cp", "-f"), writing(old, "cp", "-f") as second:
        second.kill()
        second.wait(DEADLINE)
        wait_until(is_back(old, before), "the old one is back")
    assert_active(old, data)


@pytest.mark.mount
def test_the_mount_dies_in_the_middle(tmp_path: Path, data: bytes) -> None:
    """The next start gives the name back."""
    daemon = Daemon(tmp_path)
    target = daemon.path / "file" / "image"
    try:
        daemon.start()
        target.write_bytes(data)
        before = field(target, "id")
        with writing(target, "cp", "-f"):
            daemon.kill()
        daemon.unmount()
        daemon.start()
        assert field(target, "id") == before
        assert_active(target, data)
        assert os.listdir(target.parent) == ["image"]
    finally:
        daemon.end()
