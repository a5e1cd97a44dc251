"""The text inside a VMDK: it may name no file but the image itself.

Who reads it differs: qemu looks for words anywhere and in exact case, up to the first NUL;
VMware reads lines, in any case.  Here a line must be harmless to all of them.  Names are in
the encoding of whoever wrote them and are not decoded.
"""

from __future__ import annotations

import re

from catalog.errors import InvalidImage

_ENDS = re.compile(rb"[\r\n\0]+")
_SETTING = re.compile(rb"([^\s=\"]+)\s*=\s*(.*)", re.DOTALL)
_EXTENT = re.compile(rb"(?:rw|rdonly|noaccess)\s+\d+\s+(\S+)\s+\"[^\"]*\"\s*(.*)", re.I)
_ACCESS = re.compile(rb"(?:rw|rdonly|noaccess)\b", re.I)
_NUMBER = re.compile(rb".\s*(?:0x)?[0-9a-f]", re.I | re.DOTALL)
_TYPES = (b"monolithicsparse", b"streamoptimized")
_CONVERT = "make one that stands alone: qemu-img convert -O vmdk"


def check(text: bytes, probed: bytes) -> None:
    """`text` is the descriptor, `probed` where qemu looks for a parent.  Raises InvalidImage."""
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
    """qemu wants both, in this case, before the first NUL."""
    for word in (b"CID", b"parentCID"):
        _, _, rest = text.partition(word)
        if not _NUMBER.match(rest):
            raise InvalidImage("", f"its descriptor is damaged: it has no {word.decode()}")


def _check_extent(line: bytes) -> None:
    match = _EXTENT.fullmatch(line)
    if match is None:
        raise InvalidImage("", f"its descriptor has a damaged line: {_shown(line)}")
    if match[1].lower() != b"sparse" or match[2] not in (b"", b"0"):
        # Any other kind is the data of a file of that name.
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
    """A line of a stranger's, as text that is safe to print."""
    text = line[:80].decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else "?" for each in text)
