"""The tree as wsgidav sees it, for the methods that wsgidav answers.

tree           the provider: paths, conditions and locks
view           what one request has seen of the tree
resources      folders and images: what each method does to them
locks          the catalog's locks as wsgidav's lock manager
if_header      the header `If`
destination    the header `Destination`
errors         the catalog's errors as wsgidav's
"""
