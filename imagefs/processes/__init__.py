"""The processes of this host that use the mount: who has a file open, and how each ended.

Everything here waits for nobody: any process may itself be waiting for this mount.

    holders     finds the processes that can still write to a file
    writers     the processes that write an image, as far as /proc shows them
    looks       looks at other processes, each with a deadline
    accounts    names and numbers of this host's users

"""
