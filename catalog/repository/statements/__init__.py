"""Statements that are compiled once, as all everyday ones are.

    prepared    a statement that is executed past SQLAlchemy's own, slower way
    tree        statements on folders and locations
    totals      statements on counters, and what they count

Threading: any thread.
"""
