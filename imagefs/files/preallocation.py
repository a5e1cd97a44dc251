"""Recognises a preallocation that is done byte by byte, and refuses it at once.

pyfuse3 does not support fallocate(2).  posix_fallocate(3) of glibc then writes one NUL byte into
every block of 4 KiB (sysdeps/posix/posix_fallocate.c).  That takes half a million requests for
2 GiB, and the staged file is sparse all the same.  EINVAL means "not supported" to the callers:
libvirt then writes zeros, and qemu-img reports that it could not preallocate.
"""

from __future__ import annotations

from catalog.errors import InvalidValue

_RUN = 16
"""Writes in a row that are taken for a preallocation; no other program writes so."""
_BLOCKS = (512, 1024, 2048, 4096)
"""Bytes between two such writes: f_bsize of statfs(2), at most 4096."""

REASON = (
    "space cannot be set aside here: leave it out "
    "(qemu-img -o preallocation=off or metadata; virsh --allocation 0; no fallocate)"
)


class Preallocation:
    """Watches the writes to one open file."""

    def __init__(self) -> None:
        self.refused = False
        """Whether the last write was refused."""
        self._last = -1
        self._run = 0

    def check(self, name: str, offset: int, data: bytes) -> None:
        """Raise InvalidValue for a write that is part of a preallocation."""
        if len(data) != 1 or data != b"\0":
            self._run, self.refused = 0, False
            return
        is_next = offset - self._last in _BLOCKS
        self._last, self._run = offset, self._run + 1 if is_next else 1
        if self._run >= _RUN:
            self.refused = True
            raise InvalidValue(name, REASON)
