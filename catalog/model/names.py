"""Which names are allowed in the tree, and which are temporary.

There are two checks.  `check` is for every entry there is: an entry with a name that it refuses
cannot exist, not even from an earlier version.  `check_new` refuses more; it is called wherever an
entry gets its name, in every frontend.
"""

from __future__ import annotations

import re
from secrets import token_hex
from unicodedata import category, normalize

from catalog.errors import InvalidName

TRASH = ".trash"
BY_ID = ".by-id"
SUMS = "SHA256SUMS"
"""The file with the digests of a folder's images.  The catalog makes it when it is read, so no
entry can have the name."""
MAX_BYTES = 255

FOLDER_ICON = "Icon\r"
"""Finder's file with a folder's icon: the only name with a control character that is allowed."""

_TEMPORARY = re.compile(
    r"^\."  # rsync's .NAME.XXXXXX, .nfs*, ._*, .DS_Store, .Trash-*, .~lock: never an image's
    r"|\.(part|partial|filepart|crdownload|tmp|aria2)$",
    re.IGNORECASE,
)
_OF_DESKTOPS = re.compile(
    r"desktop\.ini|(eh)?thumbs(_vista)?\.db(:encryptable)?|~\$.*"  # Windows Explorer, Office
    r"|\$RECYCLE\.BIN|RECYCLER|RECYCLED|System Volume Information"  # of a disk of Windows
    r"|Icon\r|__MACOSX|Network Trash Folder|Temporary Items|TheVolumeSettingsFolder"  # macOS
    r"|lost\+found",
    re.IGNORECASE,
)
"""Files that desktops and file systems leave in every folder.  `*~` is not among them: `cp -b` and
`rsync -b` keep an image under such a name."""

_TO_QEMU = re.compile(
    r"(json|file|fat|nbd|https?|ftps?|ssh|rbd|iscsi|iser|nfs|nvme|gluster|sheepdog|vxhs|quorum"
    r"|host_(device|cdrom)|blk(debug|verify|logwrites|replay)|null-(co|aio))(\+[a-z]+)?:"
)
"""Names that qemu does not take for a file's, if no folder is before them: `json:{…}` can name any
file of the host (`path_has_protocol` in qemu's block.c)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Unicode's Default_Ignorable_Code_Point beyond what is in a category of its own (Cf).
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0000-\U000e0fff]"
)
_SPACES = dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})


def check(name: str) -> str:
    """Return `name` if an entry can have it; else raise InvalidName."""
    if not name or name in (".", ".."):
        raise InvalidName(name or "(empty)")
    if "/" in name or (_CONTROL.search(name) and name != FOLDER_ICON):
        raise InvalidName(ascii(name), "a name holds no '/' and no control characters")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(ascii(name), "a name is UTF-8") from None
    if size > MAX_BYTES:
        raise InvalidName(name[:40] + "…", f"a name has at most {MAX_BYTES} bytes")
    return name


def check_new(name: str) -> None:
    """Raise InvalidName unless an entry may get this name now.

    Characters that nobody sees in a listing are refused: with them two names look the same,
    or a name seems to have another ending.  The catalog's own names are refused, too.
    """
    check(name)
    if name == SUMS:
        raise InvalidName(name, "is the catalog's own: the digests of a folder's images")
    if name == FOLDER_ICON:
        return
    if found := _TO_QEMU.match(name):
        raise InvalidName(
            ascii(name), f"qemu would open something else: no name begins with '{found[0]}'"
        )
    if name != name.strip():
        raise InvalidName(ascii(name), "a name neither begins nor ends with a space")
    # Nearly all names are ASCII: their characters need no look one by one.
    if name.isascii():
        return
    for character in name:
        if category(character) in _UNSEEN or _BLANK.match(character):
            raise InvalidName(
                ascii(name), f"a name holds no invisible character: U+{ord(character):04X}"
            )


def alike(name: str) -> str:
    """A form of a name, or of a path, in which names that look the same are equal.

    Unicode can write an accented letter as one character or as two; macOS sends two, all others
    send one.  There are also spaces of many widths.  The form is only for comparison: it is
    never shown, and never stored as the name.
    """
    # An ASCII name is its own form.
    return name if name.isascii() else normalize("NFC", name).translate(_SPACES)


def is_temporary(name: str) -> bool:
    """Whether a file with this name is never published: it is unfinished, or a desktop's file."""
    return _TEMPORARY.search(name) is not None or _OF_DESKTOPS.fullmatch(name) is not None


def shown(name: str) -> str:
    """A name from an untrusted source, as text that is safe to print."""
    return "".join(each if each.isprintable() else "?" for each in name[:200])


def in_trash(name: str, image_id: str) -> str:
    """The name in the trash for an entry whose own name is taken there."""
    return _longer(name, f".{image_id}")


def beside(name: str) -> str:
    """A free name for an image that is to replace the one called `name`; temporary if that is."""
    token = token_hex(4)
    return _longer(f".{token}{name}", "") if is_temporary(name) else _longer(name, f".{token}")


def _longer(name: str, suffix: str) -> str:
    room = MAX_BYTES - len(suffix)
    return name.encode()[:room].decode(errors="ignore") + suffix
