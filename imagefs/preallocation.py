"""Space that is set aside byte by byte: recognised, and refused at once.

pyfuse3 serves no fallocate(2).  posix_fallocate of glibc then writes one NUL byte into every
block of 4 KiB (sysdeps/posix/posix_fallocate.c): half a million requests for 2 GiB, and a staged
file that is sparse all the same.  At EINVAL, which stands for "not supported" there,
libvirt goes on by writing zeros; qemu-img says that it could not preallocate.
"""

from __future__ import annotations

from catalog.errors import InvalidValue

_RUN = 16
"""Such writes in a row that no other program does."""
_BLOCKS = (512, 1024, 2048, 4096)
"""Bytes between two of them: f_bsize of statfs(2), and 4096 at most."""

REASON = (
    "space cannot be set aside here: leave it out "
    "(qemu-img -o preallocation=off or metadata; virsh --allocation 0; no fallocate)"
)


class Preallocation:
    """Looks at the writes to one open file."""

    def __init__(self) -> None:
        self.refused = False
        """Whether the last write was refused, and nothing else came since."""
        self._last = -1
        self._run = 0

    def check(self, name: str, offset: int, data: bytes) -> None:
        """Raise InvalidValue for a write that only sets space aside."""
        if len(data) != 1 or data != b"\0":
            self._run, self.refused = 0, False
            return
        is_next = offset - self._last in _BLOCKS
        self._last, self._run = offset, self._run + 1 if is_next else 1
        if self._run >= _RUN:
            self.refused = True
            raise InvalidValue(name, REASON)
