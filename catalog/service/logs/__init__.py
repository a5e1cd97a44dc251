"""The log of a program that keeps running: writing a line never waits for its receiver.

Its modules:

    fields      what each line names besides its text: mount, image, store, principal, request
    handlers    where lines go: standard error, the journal, syslog, a file
    service     the log of one process: opened, and read again at SIGHUP, by the section `[log]`
"""
