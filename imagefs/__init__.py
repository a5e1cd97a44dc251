"""The mount: the catalog's tree as a FUSE file system.

Scope: it translates between the kernel's requests and `catalog.tree.vfs`, which decides
everything about images and names.  Threading: one trio loop; work that can block goes to threads.
"""
