"""The format gate: what an image's content is, and whether it may be one (DESIGN §6.8).

Detection is by content alone, with the inspectors that Glance and Nova use; a name or
an extension is never believed.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from oslo_utils.imageutils import format_inspector

from catalog.errors import InvalidImage

_BLOCK = 1024 * 1024

# The inspectors log what they refuse; we tell it in the error instead.
logging.getLogger(format_inspector.__name__).setLevel(logging.CRITICAL)

# A partition table lies inside a raw disk: to a hypervisor it is raw all the same.
_SAME_AS = {"gpt": "raw"}

# What qemu takes for a VMDK descriptor, which names other files.  The inspectors know
# only pure text, and qemu-img pads a short one with zeros.
_DESCRIPTOR = re.compile(rb"(?: *(?:#[^\n]*)?\r?\n)*version=[123]\r?\n")
_PROBED = 4096
"""Bytes of which more than qemu looks at."""


@dataclass(frozen=True, slots=True)
class Detected:
    """What the content is."""

    disk_format: str
    virtual_size: int
    """Bytes the guest sees."""


def inspect(path: Path, declared: str | None) -> Detected:
    """Detect the format of a file, and let it pass or raise InvalidImage.

    `declared` is the disk_format the uploader stated, if any.  Refused are: a backing
    file, an external data file, unknown qcow2 features, flat VMDK extents, several
    formats at once, and content that is not what was declared.
    """
    found = _detect(path)
    detected = str(found)
    if detected == "raw" and _is_descriptor(path):
        raise InvalidImage("", "the vmdk image is refused: it names other files")
    try:
        # What a partition table says concerns only the guest.
        if detected != "gpt":
            found.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        reasons = "; ".join(str(failure) for failure in error.failures.values())
        raise InvalidImage("", f"the {detected} image is refused: {reasons}") from error
    disk_format = _SAME_AS.get(detected, detected)
    if (
        declared is not None
        and declared not in (disk_format, detected)
        and not (disk_format == "raw" and declared in ("ami", "ari", "aki", "ploop"))
    ):
        raise InvalidImage("", f"declared {declared}, but the content is {disk_format}")
    size = path.stat().st_size
    virtual_size = size if disk_format in ("raw", "iso") else found.virtual_size
    if disk_format == "luks":
        # Everything behind the header, and the inspector has not seen the end.
        virtual_size += size - found.actual_size
    return Detected(disk_format, virtual_size)


def _is_descriptor(path: Path) -> bool:
    with path.open("rb") as file:
        return _DESCRIPTOR.match(file.read(_PROBED)) is not None


def _detect(path: Path) -> format_inspector.FileInspector:
    with path.open("rb") as file:
        wrapper = format_inspector.InspectWrapper(file)
        try:
            while wrapper.formats is None and wrapper.read(_BLOCK):
                pass
        finally:
            wrapper.close()
    matches = {str(match): match for match in wrapper.formats or ()}
    # A bootable ISO carries a partition table as well: that is what makes it a hybrid.
    if set(matches) == {"iso", "gpt"}:
        return matches["iso"]
    if len(matches) != 1:
        names = ", ".join(sorted(matches))
        raise InvalidImage("", f"the content is several formats at once: {names}")
    return next(iter(matches.values()))
