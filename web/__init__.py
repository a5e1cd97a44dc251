"""What every HTTP frontend shares: the server, who logs in, and what requests say of data.

It knows no WebDAV and no other protocol on top of HTTP.  The way of a request through it is in
docs/architecture.md.

    settings    the section of the configuration
    server/     connections, and requests from their first byte to their last
    login/      who asks
    exchange/   what headers and bodies mean, whatever the frontend
"""
