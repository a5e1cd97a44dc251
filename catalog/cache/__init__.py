"""The block cache: verified chunks of remote images, on this host's disk.

`cache` is what others use; the rest are its parts, one responsibility each:

    reader      one open file: what it reads, and what it will want next (`window`)
    image       one image in this process: one fetch a chunk, however many wait
    copies      where chunks come from: the image's locations, each chunk verified
    disk        where they stay: `data` and `slots` of one image
    folder      the folder of all images, shared by this host's processes: room, eviction
    pool        the threads; `heap` their memory
"""
