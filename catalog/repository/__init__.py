"""Every SQL statement, the tables, the migrations, and what differs between databases.

Rows in, values of `catalog.model` out: no row and no SQLAlchemy object leaves this room.
`Database` is the door.  It begins a transaction and returns its `Repository`.  The methods of a
repository are in modules named after their subject:

    database    Database: transactions; Repository: all tables within one of them
    statements  those that are compiled once, as all everyday ones are
    rows        the part that all share: the change feed, checks of rows that are read
    tree        folders, entries, locations; what is called so in a folder
    images      images, their properties and tags
    browse      one screen of a folder, sorted and filtered by the database; totals of stores
    journal     uploads, leases, last uses, the change feed
    hosts       the processes that serve the catalog, and their heartbeats
    copies      damaged copies, copies still to be made
    replacing   which image replaces which, and which is spared from deletion
    locks       locks of WebDAV
    people      users and members; what a principal may see, as SQL
    tables      the tables; `migrations` makes them
    schema      the schema's version, and migrations to the newest
    administration/  all rows out and in, rights of users: what an operator does with it
    engines/    opening a database; what differs between SQLite, PostgreSQL and MariaDB
    reserve     room kept on the disk, so that deleting is possible when it is full

Threading: a transaction and its repository belong to one thread.
"""
