"""The catalog's tree over WebDAV: HTTP server, wsgidav provider and a page for browsers.

An adapter (docs/architecture.md#layers): it translates between HTTP and `catalog`, and has no rules
of its own.

The way of a request: `server` accepts the connection, and `workers` give it a thread.  `connection`
collects the request's head, and `head` checks it.  `request` frames the response; `gateway` calls
the WSGI application with `body` as its input.
"""
