"""Finding the mounts of this host."""

from __future__ import annotations

from catalog.service import mounts


def test_mounts_are_found_in_mountinfo() -> None:
    """Of the type fuse.imagefs only, with blanks in their path (proc(5))."""
    text = (
        "1 2 0:3 / / rw - ext4 /dev/vda rw\n"
        "4 1 0:5 / /mnt/my\\040images rw,nosuid shared:7 - fuse.imagefs imagefs rw\n"
        "6 1 0:7 / /mnt/other rw - fuse.other fuse.imagefs rw\n"
    )
    assert [each.path for each in mounts.parse(text)] == ["/mnt/my images"]
