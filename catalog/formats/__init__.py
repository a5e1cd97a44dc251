"""The format gate: what an image's content is, and whether it may be one.

Detection is by content alone; a name or an extension is never believed.  The rule: what
qemu would probe as a format is that format, or refused; and nothing that is accepted makes
qemu open another file.

`gate` puts the parts together: `probe` tells what qemu would take the content for,
`foreign` what is no disk, and a module for each container whether it is whole, undamaged
and needs no other file.  `second_opinion` asks the inspectors that Glance and Nova use.

When any of it begins to refuse what it accepted, `catalog.model.image.GATE` is raised, so that
images that are in the catalog are judged again.  `packed` is about what
disks come in.

Files in, findings out: nothing here knows an image, a store or a row.
"""
