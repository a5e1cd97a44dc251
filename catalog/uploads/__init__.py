"""An image's bytes on their way in: staged, digested, judged, sent; then committed or cancelled.

Its modules:

    staging     the uploads of this process, each with its staging file
    upload      one upload, from its first byte to commit or cancel
    digester    digests, computed while the file is written
    sender      sending to a remote store while the file is written
    turns       one writer at a time for each image
    writeback   whether the disk has taken what the kernel wrote in the background
    packed      what a disk comes packed in, for `imagefs add`
"""
