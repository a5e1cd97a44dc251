"""What an argument means.

Its modules:

    targets     an image: a path, an id, or the beginning of an id
    sources     what `imagefs add` reads: a file, a device, a pipe, a web server
    assignments NAME=VALUE

"""
