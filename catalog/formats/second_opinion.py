"""Which formats the inspectors of Glance and Nova (oslo.utils) take content for.

They will judge the image again wherever it is used.  So content that they would take for another
format is refused here, too.  If they raise an error or do not come to a result, that does not
count: docs/adr/0021-our-own-format-gate.md has their mistakes.
"""

from __future__ import annotations

import logging

from oslo_utils.imageutils import format_inspector

from catalog.formats.content import Content

_BLOCK = 64 * 1024
_LOOKED_AT = 1024 * 1024

# The inspectors log what they find in untrusted content.
logging.getLogger(format_inspector.__name__).setLevel(logging.CRITICAL)


def formats_of(content: Content) -> set[str]:
    """Their names of the formats that the beginning matches, without `raw`."""
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
