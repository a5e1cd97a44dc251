"""What the inspectors of Glance and Nova (oslo.utils) take content for.

They decide about the image again wherever it is used, so what they would take for another
format is refused here as well.  What they raise, and what they do not finish, is no opinion:
see ADR 0021 for where they are wrong.
"""

from __future__ import annotations

import logging

from oslo_utils.imageutils import format_inspector

from catalog.formats.content import Content

_BLOCK = 64 * 1024
_LOOKED_AT = 1024 * 1024

# The inspectors log what they meet in the contents of strangers.
logging.getLogger(format_inspector.__name__).setLevel(logging.CRITICAL)


def formats_of(content: Content) -> set[str]:
    """Their names of the formats that the beginning matches; `raw` is none of them."""
    found = set()
    for name, kind in format_inspector.ALL_FORMATS.items():
        if name != "raw" and _matches(kind, content):
            found.add(name)
    return found


def _matches(kind: type[format_inspector.FileInspector], content: Content) -> bool:
    try:
        inspector = kind()
        for offset in range(0, min(content.size, _LOOKED_AT), _BLOCK):
            inspector.eat_chunk(content.at(offset, _BLOCK))
            if inspector.complete:
                break
        inspector.finish()
        return bool(inspector.format_match)
    except Exception:  # noqa: BLE001 - foreign code over the contents of strangers
        return False
