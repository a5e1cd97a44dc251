"""Finds the format that qemu would assume for content if nobody says the format.

It follows the `bdrv_probe` functions of qemu 7.2 to 9.  These see the first 512 bytes; a shorter
file looks to them as if zeros followed.  Here a magic number alone is enough.  So content that only
a later qemu would take for a format is not taken for a raw disk either.
"""

from __future__ import annotations

import re

from catalog.formats.content import Content

_MAGICS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"SKUL\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)

# qemu looks for this line in the first 512 bytes, behind comments and blank lines only.
_DESCRIPTOR = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*version[ \t]*=[ \t]*[0-9]", re.I)
_TYPE = re.compile(rb"createtype[ \t]*=", re.I)
_DESCRIPTOR_SIZE = 4096


def probe(content: Content) -> list[str]:
    """The formats that the beginning matches, each once; empty if it matches none."""
    head = content.at(0, _DESCRIPTOR_SIZE)
    found = dict.fromkeys(name for offset, magic, name in _MAGICS if head.startswith(magic, offset))
    if is_vmdk_text(head):
        found["vmdk descriptor"] = None
    return list(found)


def is_vmdk_text(head: bytes) -> bool:
    """Whether `head` is a VMDK's descriptor, which names the files that have the data."""
    if _DESCRIPTOR.match(head) or head.startswith(b"# Disk DescriptorFile"):
        return True
    text = head.partition(b"\0")[0]
    return _TYPE.search(text) is not None and text[:64].isascii()


def has_boot_signature(content: Content) -> bool:
    """Whether the first sector is a boot sector, as of a partition table or a file system."""
    return content.at(510, 2) == b"\x55\xaa"


def is_optical(content: Content) -> bool:
    """Whether there is an ISO 9660 or UDF volume, from sector 16 on (ECMA-119, ECMA-167)."""
    for sector in range(16, 32):
        kind = content.at(sector * 2048 + 1, 5)
        if kind in (b"CD001", b"NSR02", b"NSR03"):
            return True
        if kind not in (b"BEA01", b"BOOT2", b"CDW02"):
            return False
    return False
