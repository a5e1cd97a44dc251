"""A store in a folder of this host, or of a file server.

Its modules:

    store           the driver: one file for each image
    reader          one open file
    writer          one file being stored: staged, then renamed to its key
    marker          the file by which a missing mount is noticed
    shared          a folder on a file server: no call waits for ever
    time_limits     calls into a file system that may never return
"""
