"""The catalog as WebDAV, and a page for people.

An adapter (docs/architecture.md#the-house): it translates between WebDAV and `catalog` and decides
nothing itself.  The HTTP server, and what every HTTP frontend needs, are in `web`.

    app         the WSGI application: which method is answered by whom
    put         PUT: uploads, whole or in parts
    propfind/   listings
    provider/   the tree for wsgidav, which answers the other methods
    browse/     the page for people, and its JSON
    xml         the XML of requests
    cli         `imagefs dav`
"""
