"""The HTTP server: connections, and requests from their first byte to their last.

`Server` (server) is the door; an application sees its bodies and its files (`web.exchange.body`).

    server      accepts, watches the connections that wait, gives the others to workers
    listening   the address or systemd's socket, and TLS
    connection  one client's connection, between its requests and in them
    request     one request, and the framing of its response
    gateway     calls the WSGI application
    head        the head of a request, judged and parsed
    workers     threads, as many as there is work
    pace        the least speed of a client
    shares      what one client may have of what all share
"""
