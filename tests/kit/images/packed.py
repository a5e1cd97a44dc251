"""Images as others pack them: compressed, and in an appliance (OVA)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

from backports import zstd

CHECKSUM = zstd.CompressionParameter.checksum_flag
"""The command zstd writes one, the library does not by itself."""

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, compresslevel=1),
    "xz": lambda data: lzma.compress(data, preset=1),
    "zstd": lambda data: zstd.compress(data, options={CHECKSUM: 1}),
    "bzip2": lambda data: bz2.compress(data, compresslevel=1),
}
OVF = b'<?xml version="1.0"?>\n<Envelope><References>%s</References>%s</Envelope>\n'


def ova(
    members: dict[str, bytes], description: bytes | None = None, kind: int = tarfile.USTAR_FORMAT
) -> bytes:
    """An appliance of some files, described as one disk unless said otherwise."""
    files = b"".join(b'<File href="%s"/>' % name.encode() for name in members)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind) as archive:
        described = {"vm.ovf": OVF % (files, b"") if description is None else description}
        for name, data in {**described, **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()
