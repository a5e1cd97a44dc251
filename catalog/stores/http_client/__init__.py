"""The common parts of all drivers that use HTTP.

Its modules:

    errors      failures on the way to a server, as errors of the catalog
    answers     what an answer to a ranged GET contains, and how long a busy server wants to be left
"""
