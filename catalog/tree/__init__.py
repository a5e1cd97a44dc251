"""Names: what a path stands for, and what an operation on a name does.  The door of the frontends.

Its modules:

    namespace   what names stand for: the part that only looks
    known       what was looked up lately, from memory, until the change feed tells of a change
    vfs         what operations on names do
    subtrees    folders with all that is in them: copied and deleted as one
    listings    a folder as people look at it: sorted, filtered, one screen at a time
    history     what was done with an image, by whom
    adopt       giving names to data that lies in a store already
"""
