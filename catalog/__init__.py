"""The catalog: images, their names and their data, free of any protocol.

Scope: metadata in SQL, the status machine, uploads, readers, stores and the virtual tree.
Threading: everything here is synchronous and may be called from any thread; nothing knows of
errno, HTTP, trio, pyfuse3, wsgidav or cheroot
(docs/adr/0030-rooms.md).
"""
