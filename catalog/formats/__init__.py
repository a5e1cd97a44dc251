"""The format gate: what an image's content is, and whether it may be one.

Only the content decides, never a name or an extension.  The rule: content that qemu would take
for a format is that format, or it is refused; and nothing that is accepted makes qemu open another
file.

`gate` puts the parts together.  `probe` finds what qemu would take the content for, and `foreign`
recognises what is no disk.  A module for each container checks that the image is whole, undamaged
and needs no other file.  `second_opinion` asks the inspectors that Glance and Nova use.

If a change refuses content that was accepted before, `catalog.model.image.GATE` has to be raised,
so that images in the catalog are judged again.

Files in, findings out: nothing here knows an image, a store or a row.
"""
