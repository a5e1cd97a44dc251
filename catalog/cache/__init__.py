"""The block cache: verified chunks of remote images, on this host's disk.

Others use `block_cache`; the other modules are its parts, each with one task:

    reader        one open file: what it reads, and what it will read next (`window`)
    open_image    one image in this process: each chunk is fetched once, however many wait for it
    sources       where chunks come from: the image's locations, each chunk verified
    shelf         where chunks are kept: a few in memory, and behind that the disk
    disk          the chunks of one image on the disk: `data` and `slots`
    flusher       the thread that writes chunks to the disk; `direct` writes past the page cache
    folder        the folder of all images, shared by this host's processes: room, eviction
    boot_profile  which chunks a first boot reads
    pool          the threads that fetch; `heap` has their memory
"""
