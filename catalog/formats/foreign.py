"""Content that is no disk at all: pages, text, archives, compressed images.

A signature is only used if it is so long that no disk begins with it by chance.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from catalog.formats.content import Content

_UNPACK = "unpack it, or use 'imagefs add', which does so by itself"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something other than a disk, and what a user can do with it."""

    what: str
    advice: str
    container: str | None = None
    """The container_format for which it is right."""


_NO_DISK = "it is no disk"
_LATER = "unpack it"
_PAGE = Foreign("a web page or XML, perhaps a server's error message", "look at it")
_TAKE_OUT = "take the disk out of it first"


def _compressed(name: str) -> Foreign:
    return Foreign(f"{name}-compressed", _UNPACK, "compressed")


_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), foreign)
    for pattern, foreign in (
        (rb"\x1f\x8b\x08[\x00-\x1f]", _compressed("gzip")),
        (rb"\xfd7zXZ\x00", _compressed("xz")),
        (rb"\x28\xb5\x2f\xfd", _compressed("zstd")),
        (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", _compressed("bzip2")),
        (rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", Foreign("lz4-compressed", _LATER)),
        (rb"\x5d\x00\x00.{2}\xff{8}", Foreign("lzma-compressed", _LATER)),
        (rb"LZIP\x01", Foreign("lzip-compressed", _LATER)),
        (rb"\x89LZO\x00\r\n\x1a\n", Foreign("lzop-compressed", _LATER)),
        (rb"PK\x03\x04|PK\x05\x06\x00|PK\x07\x08PK", Foreign("a zip archive", _TAKE_OUT)),
        (rb"7z\xbc\xaf\x27\x1c", Foreign("a 7z archive", _TAKE_OUT)),
        (rb"Rar!\x1a\x07", Foreign("a rar archive", _TAKE_OUT)),
        (rb"MSCF\x00{4}", Foreign("a cab archive", _TAKE_OUT)),
        (rb"MSWIM\x00{3}", Foreign("a Windows installation image (WIM)", "apply it to a disk")),
        (rb"VMA\x00{4}\x01", Foreign("a Proxmox backup", "take the disk out: vma extract")),
        (rb"!<arch>\n|\xed\xab\xee\xdb", Foreign("a package of programs", _NO_DISK)),
        (
            rb"0707(?:01|02|07)[0-9A-Fa-f]{8}",
            Foreign("a cpio archive", "for an initrd set disk_format=ari"),
        ),
        (
            rb"\x7fELF[\x01\x02][\x01\x02]\x01",
            Foreign("a program (ELF)", "for a kernel set disk_format=aki"),
        ),
        (rb"%PDF-[0-9]", Foreign("a PDF document", _NO_DISK)),
        (
            rb"\x89PNG\r\n\x1a\n|GIF8[79]a|\xff\xd8\xff[\xe0\xe1\xdb]",
            Foreign("a picture", _NO_DISK),
        ),
        (rb"SQLite format 3\x00", Foreign("an SQLite database", _NO_DISK)),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Foreign("an Office document or MSI", _NO_DISK)),
    )
)
_APPLE = Foreign("an Apple disk image (dmg)", "convert it: qemu-img convert -f dmg -O raw")
_TAR = Foreign("a tar archive", _TAKE_OUT, "docker")
OVA = Foreign(
    "an OVA", "'imagefs add' takes the disk out of it; or set container_format=ova", "ova"
)

_TEXT_BEGINNINGS = (
    (re.compile(rb"\s*<(?:!doctype|!--|\?xml|[a-z][a-z0-9:]*[\s>/])", re.I), _PAGE),
    (re.compile(rb"#!\s*/"), Foreign("a script", "it is no disk")),
    (re.compile(rb"#cloud-config|#include\s|#cloud-boothook|content-type:\s*multipart/", re.I),
     Foreign("user data of cloud-init", "it is no disk: give it to the guest as such")),
    (re.compile(rb"-----BEGIN [A-Z ]+-----"), Foreign("a key or signature", "it is no disk")),
    (re.compile(rb"version https://git-lfs\.github\.com/"),
     Foreign("a Git LFS pointer", "fetch the file itself: git lfs pull")),
)  # fmt: skip
_JSON = Foreign("JSON, perhaps a server's error message", "look at it")
_TEXT = Foreign("text", "look at it")
_SECTOR = 512
"""Bytes.  Shorter text is not recognised: no disk is so small, and nobody would take it for one."""
_LOOKED_AT = 4096
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"


def recognise(content: Content) -> Foreign | None:
    """What the content is, if it is known and is no disk; else None."""
    head = content.at(0, _LOOKED_AT)
    for pattern, foreign in _SIGNATURES:
        if pattern.match(head):
            return foreign
    if content.size > _SECTOR and content.at(content.size - 512, 8) == b"koly\0\0\0\4":
        return _APPLE
    if is_tar(head):
        return OVA if is_ova(head) else _TAR
    return _recognise_text(content, head)


def is_tar(head: bytes) -> bool:
    """Whether `head` is the header of a tar archive, by its checksum (POSIX pax, "ustar")."""
    block = head[:512]
    if len(block) < 512 or not block[0]:
        return False
    try:
        told = int(block[148:156].split(b"\0")[0].strip() or b"x", 8)
    except ValueError:
        return False
    return told == sum(block[:148]) + 8 * 32 + sum(block[156:])


def is_ova(head: bytes) -> bool:
    """Whether a tar's first member is the description of an appliance (OVF, DMTF DSP0243)."""
    return head[:100].split(b"\0")[0].lower().endswith(b".ovf")


def _recognise_text(content: Content, head: bytes) -> Foreign | None:
    text = head.removeprefix(b"\xef\xbb\xbf")
    line = text[:64]
    if not line or line.translate(None, _CONTROL) != line:
        return None
    for pattern, foreign in _TEXT_BEGINNINGS:
        if pattern.match(text):
            return foreign
    if _is_json(content, text):
        return _JSON
    if content.size >= _SECTOR and b"\n" in text and text.translate(None, _CONTROL) == text:
        return _TEXT
    return None


def _is_json(content: Content, text: bytes) -> bool:
    if text.lstrip()[:1] not in (b"{", b"["):
        return False
    if content.size > _LOOKED_AT:
        return re.match(rb"\s*(?:\{\s*\"[^\"\n]*\"\s*:|\[\s*[\[{\"])", text) is not None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
