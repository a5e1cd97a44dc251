"""The catalog's tree over WebDAV: HTTP server, wsgidav provider and a page for browsers.

An adapter (docs/architecture.md#layers): it translates between HTTP and `catalog` and decides
nothing itself.

A request's way: `server` accepts, `workers` give it a thread, `connection` collects and `head`
judges the request's head, `request` frames the response, `gateway` calls the WSGI application
with `body` as its input.
"""
