"""The format gate: what an image's content is, and whether it may be one.

Detection is by content alone; a name or an extension is never believed.  The rule: what
qemu would probe as a format is that format, or refused; and nothing that is accepted makes
qemu open another file.

`verdict` puts the parts together: `probe` tells what qemu would take the content for,
`foreign` what is no disk, and a module for each container whether it is whole, undamaged
and needs no other file.  `second_opinion` asks the inspectors that Glance and Nova use.

When any of it begins to refuse what it accepted, `catalog.image.GATE` is raised, so that
images that are in the catalog are judged again.
"""

from catalog.formats.blank import is_blank
from catalog.formats.content import Source
from catalog.formats.verdict import Declared, Detected, Refused, inspect, inspect_file, judge

__all__ = [
    "Declared",
    "Detected",
    "Refused",
    "Source",
    "inspect",
    "inspect_file",
    "is_blank",
    "judge",
]
