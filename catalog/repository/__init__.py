"""Every SQL statement, the tables, the migrations, and what differs between databases.

Rows in, values of `catalog.model` out: no row and no SQLAlchemy object leaves this room.
`Database` is the door.  It begins a transaction and gives out its `Repository`, whose methods are
the modules named after their subject:

    database    Database: transactions; Repository: all tables within one of them
    rows        what all methods share: the change feed, checks of what is read
    tree        folders, entries, locations
    images      images, their properties and tags
    browse      one screen of a folder, sorted and filtered by the database
    journal     uploads, leases, last uses, the change feed
    copies      damaged copies, copies still to be made
    replacing   what an upload is to replace, what is spared from deletion
    locks       locks of WebDAV
    people      users and members; what a principal may see, as SQL
    tables      the tables; `migrations` makes them
    schema      the schema's version, and bringing it up to date
    engine      opening a database; its errors as `catalog.errors`
    sqlite      what is SQLite's own: journal, the writers' queue, damage
    reserve     room kept on the disk, so that deleting is possible when it is full

Threading: a transaction and its repository belong to one thread.
"""
