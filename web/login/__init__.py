"""Who asks: a request becomes a principal before any frontend sees it.

basic       a name and a password (RFC 7617)
"""
