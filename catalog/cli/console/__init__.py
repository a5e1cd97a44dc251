"""What a command has around it: its three streams, what it prints, and how it ends.

Its modules:

    streams     all three are there, and text is UTF-8
    output      tables, JSON, errors, progress
    history     an event of an image's history, in words
    exit_codes  one table from the catalog's errors to exit codes

"""
