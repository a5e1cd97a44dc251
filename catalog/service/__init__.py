"""The running process: its configuration, its start, and its work besides the requests.

Its modules:

    host_users      users of this host as principals
"""
