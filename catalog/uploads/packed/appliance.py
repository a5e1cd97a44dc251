"""Reads the disk from an OVA: a tar archive (ustar) whose first file describes an appliance.

The format is DMTF DSP0243 (OVF 2.1).  Only the parts of tar that such archives need are read, and
memory is bounded, as archives come from untrusted sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from catalog.errors import IncompleteUpload, InvalidImage
from catalog.formats import foreign
from catalog.model.names import shown
from catalog.uploads.packed.manifest import Manifest, is_manifest
from catalog.uploads.packed.stream import Stream

_BLOCK = 512
_LARGEST_TEXT = 2 << 20
"""Bytes of a description; real ones have about ten thousand.  Its XML tree can take 100 times as
much memory."""
_LARGEST_NAME = 64 << 10
_LARGEST_FILE = (1 << 63) - 1
_LINKS = (b"1", b"2")
"""Kinds of members that have no data, whatever size their header has."""
_OCTAL = re.compile(rb"[0-7]{1,21}")
_RECORD = re.compile(rb"([0-9]{1,6}) ")
_STEP = 1 << 20
_DISKS = (".vmdk", ".vhd", ".vhdx", ".vdi", ".qcow2", ".img", ".raw", ".iso", ".hdd", ".gz")


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int


def is_ova(head: bytes) -> bool:
    """Whether data with this beginning is an OVA."""
    return foreign.is_tar(head) and foreign.is_ova(head)


def disk_of(
    subject: str, archive: Stream, tell: Callable[[str], object]
) -> tuple[str, Iterator[bytes]]:
    """The name of the one disk of an OVA, and its data, compared with the manifest at its end.

    `tell` gets a line for each file that the manifest does not name.  Raises InvalidImage for a
    description that is damaged or does not name exactly one disk, DigestMismatch,
    IncompleteUpload.
    """
    described = _next_member(subject, archive)
    if described is None or described.size > _LARGEST_TEXT:
        raise InvalidImage(subject, "the description of the appliance is damaged")
    text = archive.exactly(described.size)
    archive.skip(-described.size % _BLOCK)
    wanted = _disk_name(subject, text)
    manifest = Manifest(subject, (described.name, wanted), tell)
    manifest.feed(described.name, text)
    return wanted, _data_of(subject, archive, wanted, manifest)


def _data_of(subject: str, archive: Stream, wanted: str, manifest: Manifest) -> Iterator[bytes]:
    """The disk's data.  The whole archive is read, to find out if it is cut off or has another."""
    is_found = False
    while (member := _next_member(subject, archive)) is not None:
        if member.name == wanted:
            if is_found:
                raise InvalidImage(subject, f"the archive has two files {shown(wanted)}")
            is_found = True
            for data in _content(subject, archive, member):
                manifest.feed(wanted, data)
                yield data
        elif is_manifest(member.name):
            if member.size > _LARGEST_TEXT:
                reason = f"{shown(member.name)} is too large for a manifest"
                raise InvalidImage(subject, f"{reason}: take the disk out with tar -xf and add it")
            manifest.read(member.name, b"".join(_content(subject, archive, member)))
        elif archive.skip(_whole(member.size)) < member.size:
            raise IncompleteUpload(subject, "the archive ends too soon: it was cut off")
    if not is_found:
        raise InvalidImage(
            subject, f"the appliance names {shown(wanted)}, which is not in the archive"
        )
    manifest.finish()


def _content(subject: str, archive: Stream, member: _Member) -> Iterator[bytes]:
    """A file's data; afterwards its padding is read as well."""
    left = member.size
    while left and (data := archive.read(min(left, _STEP))):
        left -= len(data)
        yield data
    if left:
        raise IncompleteUpload(
            subject, f"the archive ends within {shown(member.name)}: it was cut off"
        )
    archive.skip(-member.size % _BLOCK)


def _whole(size: int) -> int:
    return size + -size % _BLOCK


def _next_member(subject: str, archive: Stream) -> _Member | None:
    """The next file's header; None at the end.  The file's data is next in the stream."""
    told: dict[bytes, bytes] = {}
    while True:
        header = archive.exactly(_BLOCK)
        if not header.strip(b"\0"):
            return None
        if not foreign.is_tar(header):
            raise InvalidImage(subject, "the archive is damaged")
        size = _number(subject, header[124:136])
        kind = header[156:157]
        if kind in (b"x", b"g", b"L"):
            if size > _LARGEST_NAME:
                raise InvalidImage(subject, "the archive is damaged: a name is too long")
            extra = archive.exactly(size)
            archive.skip(-size % _BLOCK)
            told |= {b"path": extra.split(b"\0")[0]} if kind == b"L" else {}
            told |= dict(_settings(extra)) if kind == b"x" else {}
            continue
        if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in told):
            raise InvalidImage(
                subject, "the archive has sparse files: take the disk out with tar -xf and add it"
            )
        size = _number(subject, told[b"size"]) if b"size" in told else size
        if kind in (b"0", b"\0", b"7"):
            name = told.get(b"path") or _plain_name(header)
            return _Member(name.decode("utf-8", "replace").removeprefix("./"), size)
        if kind not in _LINKS:
            archive.skip(_whole(size))
        told = {}


def _plain_name(header: bytes) -> bytes:
    prefix = header[345:500].split(b"\0")[0] if header[257:262] == b"ustar" else b""
    return b"/".join(filter(None, (prefix, header[:100].split(b"\0")[0])))


def _number(subject: str, field: bytes) -> int:
    """A size: octal digits, or, if the first bit is set, a binary number of 11 bytes (GNU)."""
    if field[:1] == b"\x80":
        number = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b"\0 ") or b"0"
        number = int(digits, 8) if _OCTAL.fullmatch(digits) else _LARGEST_FILE + 1
    if number > _LARGEST_FILE:
        raise InvalidImage(subject, "the archive is damaged: a size is no number")
    return number


def _settings(extra: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The settings of an extended header: records `LENGTH KEY=VALUE` (POSIX pax)."""
    while match := _RECORD.match(extra):
        length = int(match[1])
        key, _, value = extra[match.end() : length - 1].partition(b"=")
        if length <= match.end():
            return
        # A size is decimal here; give it in octal, as a plain header has it.
        yield key, b"%o" % int(value) if key == b"size" and value.isdigit() else value
        extra = extra[length:]


def _disk_name(subject: str, text: bytes) -> str:
    try:
        root = ElementTree.fromstring(text)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InvalidImage(
            subject, f"the description of the appliance is damaged: {error}"
        ) from error
    files = {
        _attribute(each, "id") or _attribute(each, "href"): _attribute(each, "href")
        for each in _named(root, "File")
    }
    used = [_attribute(each, "fileRef") for each in _named(root, "Disk")]
    disks = [files[each] for each in used if each in files]
    if not disks:
        disks = [each for each in files.values() if each.lower().endswith(_DISKS)]
    disks = list(dict.fromkeys(filter(None, disks)))
    if not disks:
        raise InvalidImage(subject, "the appliance has no disk")
    if len(disks) > 1:
        raise InvalidImage(
            subject,
            f"the appliance has {len(disks)} disks ({shown(', '.join(disks))}):"
            " take them out with tar -xf and add each",
        )
    return disks[0].removeprefix("./")


def _named(root: Element, name: str) -> list[Element]:
    """All elements with a name, in any namespace."""
    return [each for each in root.iter() if str(each.tag).rpartition("}")[2] == name]


def _attribute(element: Element, name: str) -> str:
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""
