"""What a disk comes packed in: compression, an OVA, or both.  Bytes in, the disk's bytes out.

unpacking   the layers that are taken off, as the bytes stream by
appliance   the disk of an OVA
manifest    the digests that an OVA brings of its files
stream      bytes that come in pieces of any size, read in pieces of another
"""
