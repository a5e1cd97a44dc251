"""Unpacking disks from compression, from an OVA, or both.  Bytes in, the disk's bytes out.

Its modules:

    unpacking   removing the layers while the bytes stream by
    appliance   the disk of an OVA
    manifest    the digests that an OVA has of its files
    stream      bytes that come in pieces of any size, read in pieces of another
    packed      what a disk comes packed in, for `imagefs add`
"""
