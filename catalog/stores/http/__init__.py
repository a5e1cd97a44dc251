"""A read-only store of images on web servers.

Its modules:

    store           the driver
    settings        its section, and its settings for single servers
    address_filter  which servers it may talk to
"""
