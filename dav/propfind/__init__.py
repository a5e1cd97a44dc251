"""PROPFIND: what a folder or an image is to WebDAV, for listings of any size.

answer         the multi-status, written while it is read
properties     the properties there are, and how each is written
kept_pages     what was written, kept until something in it changes
lockdiscovery  the property of that name
"""
