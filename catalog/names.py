"""What a name in the tree may be, and what it says (DESIGN §4 and §6.5)."""

from __future__ import annotations

import re

from catalog.errors import InvalidName

TRASH = ".trash"
BY_ID = ".by-id"
MAX_BYTES = 255

_TEMPORARY = re.compile(
    r"^\."  # rsync's .NAME.XXXXXX, .nfs*, ._*, .DS_Store, .~lock: never an image's
    r"|\.(part|partial|filepart|crdownload|tmp)$",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check(name: str) -> str:
    """Return `name` if an entry can be called so; else raise InvalidName."""
    if not name or name in (".", ".."):
        raise InvalidName(name or "(empty)")
    if "/" in name or _CONTROL.search(name):
        raise InvalidName(ascii(name), "a name holds no '/' and no control characters")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(ascii(name), "a name is UTF-8") from None
    if size > MAX_BYTES:
        raise InvalidName(name[:40] + "…", f"a name has at most {MAX_BYTES} bytes")
    return name


def is_temporary(name: str) -> bool:
    """Whether a name says that its file is not finished, so that it is never published."""
    return _TEMPORARY.search(name) is not None


def in_trash(name: str, image_id: str) -> str:
    """The name to give an entry whose own is already taken in the trash."""
    suffix = f".{image_id}"
    room = MAX_BYTES - len(suffix)
    return name.encode()[:room].decode(errors="ignore") + suffix
