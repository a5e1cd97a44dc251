"""What a command has around it: its three streams, what it prints, and how it ends.

Its modules:

    streams     all three are there, and text is UTF-8
    output      tables, JSON, errors, progress
    exit_codes  one table from the catalog's errors to exit codes

"""
