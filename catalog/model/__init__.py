"""The project's terms as frozen values, enums and tables, and the pure rules on them.

No I/O, and no clock but `image.now`.  Everything here may be shared by any threads.

    image       an image, and what is known about its data
    tree        folders, entries, locations, places
    activity    uploads, uses, locks, the change feed
    listings    what a listing is asked for, and what it shows
    status      the status machine, as a table
    names       which names are allowed, and which are temporary
    fields      an image's fields as text: one table for every frontend
    access      who may do what
    digests     digest algorithms, by the names they are recorded under
"""
