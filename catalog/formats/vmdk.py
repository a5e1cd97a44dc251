"""VMDK in one file: monolithicSparse and streamOptimized (VMware's "Virtual Disk Format 5.0").

Numbers are little-endian; positions are in sectors of 512 bytes.

The descriptor, a text inside the image, must not name any file but the image itself.  Programs
read it in different ways.  qemu looks for words anywhere, in exact case, up to the first NUL;
VMware reads lines, in any case.  Here every line must be harmless to all of them.  Names are not
decoded, as their encoding is not known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from catalog.errors import InvalidImage
from catalog.formats import tables
from catalog.formats.content import Content, cut_off

_SECTOR = 512
_HEADER = "<4sIIQQQQIQQQB4sH"
_AT_END = 2**64 - 1
_HAS_REDUNDANT, _HAS_MARKERS = 1 << 1, 1 << 17
_MAX_DIRECTORY = 32 * 1024 * 1024
_MAX_GRAIN = 0x200000
_ENDS = re.compile(rb"[\r\n\0]+")
_SETTING = re.compile(rb"([^\s=\"]+)\s*=\s*(.*)", re.DOTALL)
_EXTENT = re.compile(rb"(?:rw|rdonly|noaccess)\s+\d+\s+(\S+)\s+\"[^\"]*\"\s*(.*)", re.I)
_ACCESS = re.compile(rb"(?:rw|rdonly|noaccess)\b", re.I)
_NUMBER = re.compile(rb".\s*(?:0x)?[0-9a-f]", re.I | re.DOTALL)
_TYPES = (b"monolithicsparse", b"streamoptimized")
_CONVERT = "make one that stands alone: qemu-img convert -O vmdk"
_SPLIT = "convert the whole into one file: qemu-img convert -O vmdk"


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    entries: int
    redundant: int
    directory: int
    overhead: int
    compression: int

    @property
    def reach(self) -> int:
        """Sectors of the guest that one grain table covers."""
        return self.entries * self.grain

    @property
    def tables(self) -> int:
        """The number of grain tables."""
        return -(-self.capacity // self.reach)


def refuse_descriptor(_content: Content) -> int:
    """Raise InvalidImage: a descriptor that is a file by itself has its data in other files."""
    raise InvalidImage("", f"it only names the files that have the data; {_SPLIT}")


def examine(content: Content) -> int:
    """The virtual size in bytes.

    Raises InvalidImage if the image is not whole, or needs another file.
    """
    if content.at(0, 4) != b"KDMV":
        raise InvalidImage("", f"it is a part of an ESX disk; {_SPLIT}")
    header = _read_header(content, 0)
    _check_descriptor(content, header)
    content.stands_alone = True
    if header.directory == _AT_END:
        header = _read_footer(content, header)
    _check_layout(content, header)
    budget = tables.Budget()
    if header.flags & _HAS_REDUNDANT:
        _check_directory(content, header, header.redundant, tables.Budget(), grains=False)
    _check_directory(content, header, header.directory, budget, grains=True)
    return header.capacity * _SECTOR


def _read_header(content: Content, offset: int) -> _Header:
    numbers = content.unpack(_HEADER, offset, "the header")
    header = _Header(*(*numbers[1:11], numbers[13]))
    if numbers[0] != b"KDMV" or header.version not in (1, 2, 3) or header.compression > 1:
        raise InvalidImage("", "its header is damaged, or of a version that nobody knows")
    return header


def _read_footer(content: Content, header: _Header) -> _Header:
    """The header at the end of a stream: only there the place of the directory is known."""
    start = content.size - 3 * _SECTOR
    if content.size % _SECTOR or start < _SECTOR:
        raise InvalidImage("", "it was cut off: a stream ends with a footer, and this has none")
    _, size, kind = content.unpack("<QII", start, "the footer")
    value, end_size, end = content.unpack("<QII", start + 2 * _SECTOR, "the footer")
    if content.at(start + _SECTOR, 4) != b"KDMV" or (size, kind) != (0, 3):
        raise InvalidImage("", "it was cut off: a stream ends with a footer, and this has none")
    if (value, end_size, end) != (0, 0, 0):
        raise InvalidImage("", "its footer is damaged")
    footer = _read_header(content, start + _SECTOR)
    if footer.directory == _AT_END or _told(footer) != _told(header):
        raise InvalidImage("", "its footer contradicts its header")
    return footer


def _told(header: _Header) -> tuple[int, ...]:
    """The fields that must be the same in a header and its footer."""
    described = header.descriptor, header.descriptor_size
    return header.version, header.capacity, header.grain, *described


def _check_descriptor(content: Content, header: _Header) -> None:
    if header.capacity == 0:
        # qemu then reads the descriptor like one in a file by itself, and opens flat extents.
        raise InvalidImage("", f"its header says that the data is in other files; {_SPLIT}")
    if header.descriptor == 0:
        raise InvalidImage("", f"it is one part of a disk that was split into files; {_SPLIT}")
    if header.descriptor != 1 or not 0 < header.descriptor_size <= 2048:
        # qemu looks for a parent at this place, whatever the header says.
        raise InvalidImage("", "its descriptor does not lie behind its header")
    length = header.descriptor_size * _SECTOR
    text = content.exactly(_SECTOR, length, "the descriptor")
    _check_text(text, content.at(_SECTOR, 20 * _SECTOR))


def _check_layout(content: Content, header: _Header) -> None:
    if not (0 < header.entries <= 512 and 0 < header.grain <= _MAX_GRAIN):
        raise InvalidImage("", "the size of its grains or tables is not possible")
    if header.capacity > 2**63 // _SECTOR - 1 or header.tables > _MAX_DIRECTORY:
        raise InvalidImage("", f"a disk of {header.capacity} sectors is not possible")
    content.check_inside(0, header.overhead * _SECTOR, "the part before its data")


def _check_directory(
    content: Content, header: _Header, at: int, budget: tables.Budget, *, grains: bool
) -> None:
    what, size = "the grain directory", header.entries * 4
    found = []
    for first, numbers in tables.blocks(
        content, at * _SECTOR, header.tables, 4, "little", what, budget
    ):
        content.check_inside(max(numbers) * _SECTOR, size, "a grain table")
        found += [
            (number * _SECTOR, index)
            for index, number in enumerate(numbers, first)
            if number > 1 and budget.is_new(number)
        ]
    if grains:
        for offset, index in tables.last_first(found, content):
            _check_table(content, header, offset, index, budget)


def _check_table(
    content: Content, header: _Header, offset: int, index: int, budget: tables.Budget
) -> None:
    what = "a grain table"
    for first, numbers in tables.blocks(content, offset, header.entries, 4, "little", what, budget):
        last = max(numbers)
        if last <= 1:
            continue  # 1 is a grain of zeros
        place = numbers.index(last) + first
        start = last * _SECTOR
        if header.compression and header.flags & _HAS_MARKERS:
            _, length = content.unpack("<QI", start, "a grain")
            end = start + 12 + length
        elif header.compression:
            end = start + 1
        else:
            # Of the guest's last grain the file needs only the part that the guest sees.
            left = header.capacity - index * header.reach - place * header.grain
            end = start + min(header.grain, max(left, 1)) * _SECTOR
        if end > content.size:
            raise cut_off("its data", end, content.size)


def _check_text(text: bytes, probed: bytes) -> None:
    """Check a descriptor; `probed` are the bytes in which qemu looks for a parent.

    Raises InvalidImage.
    """
    for words in (text.lower(), probed.lower()):
        if b"parentfilenamehint" in words:
            raise InvalidImage("", f"it has a parent, which is another file; {_CONVERT}")
    extents = 0
    for line in _ENDS.split(text):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        if _ACCESS.match(line):
            extents += 1
            _check_extent(line)
        elif setting := _SETTING.fullmatch(line):
            _check_setting(setting[1].lower(), setting[2].strip().strip(b'"').lower())
        else:
            raise InvalidImage("", f"its descriptor has a line nobody knows: {_shown(line)}")
    if not extents:
        raise InvalidImage("", f"it is one part of a disk that was split into files; {_CONVERT}")
    if extents > 1:
        raise InvalidImage("", f"its descriptor names {extents} files instead of itself alone")
    _check_ids(probed.partition(b"\0")[0])


def _check_ids(text: bytes) -> None:
    """Check that both ids are there: qemu looks for them in exact case, before the first NUL."""
    for word in (b"CID", b"parentCID"):
        _, _, rest = text.partition(word)
        if not _NUMBER.match(rest):
            raise InvalidImage("", f"its descriptor is damaged: it has no {word.decode()}")


def _check_extent(line: bytes) -> None:
    match = _EXTENT.fullmatch(line)
    if match is None:
        raise InvalidImage("", f"its descriptor has a damaged line: {_shown(line)}")
    if match[1].lower() != b"sparse" or match[2] not in (b"", b"0"):
        # In every other kind of extent the data is in a file of that name.
        raise InvalidImage("", f"its data is in another file: {_shown(line)}; {_CONVERT}")


def _check_setting(key: bytes, value: bytes) -> None:
    match key:
        case b"createtype" if value not in _TYPES:
            raise InvalidImage("", f"its kind, {_shown(value)}, is not of one file; {_CONVERT}")
        case b"parentcid" if value != b"ffffffff":
            raise InvalidImage("", f"it has a parent, which is another file; {_CONVERT}")
        case b"changetrackpath":
            raise InvalidImage("", f"it names a file of tracked changes; {_CONVERT}")
        case b"cid" if not re.fullmatch(rb"[0-9a-f]{1,8}", value):
            raise InvalidImage("", "its descriptor is damaged: the CID is no number")


def _shown(line: bytes) -> str:
    """An untrusted line as text that is safe to print."""
    text = line[:80].decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else "?" for each in text)
