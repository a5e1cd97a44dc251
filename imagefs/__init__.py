"""The mount: the catalog's tree as a FUSE file system.

Scope: translate between the kernel's requests and `catalog.vfs`; everything an image is or may
become is decided there.  Threading: one trio loop; what can block goes to threads.
"""
