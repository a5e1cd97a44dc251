"""An image's bytes at rest: which copies there are, reading them, copying, removing, recovering.

A reader comes in by `reader`, a deletion by `purge`, a start by `recovery`.

    locations   where the data is whole, and which copies are known not to be
    reader      reading from whichever copy answers
    recording   an image without digests gets them when all of it is read for the first time
    stream      data in order, each chunk from a copy that has it right
    external    inspecting the data at a URL, before it becomes an image
    uses        who uses images now, and when each was last used
    replicate   copying to another store, verified on the way
    duplicate   a new image with the data of another
    progress    what an image's message says while its data is copied
    removal     removing data: the store is asked before the catalog forgets anything
    unfinished  cleaning up after one upload or copy whose process has ended
    purge       deleting what is in the trash; going on with what was begun
    recovery    cleaning up after all processes of this host that have ended

"""
