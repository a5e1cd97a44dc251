"""Open files and open folders: what open, write and close mean for an image.

Its modules:

    handles         open files: when an upload begins, and which close commits it
    handle          one open file
    volumes         blank disks that one process makes and another one fills
    preallocation   recognises a preallocation that is done byte by byte
    listing         open folders

"""
