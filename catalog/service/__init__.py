"""What a running process is: its configuration, its start, its life beside the requests.

Its modules:

    configuration   the TOML file: which one is read, what its sections are
    bootstrap       making a catalog, and opening one
    life            recovery, copies in the background, the heartbeat, readiness
    health          whether the process, its database and its stores are well
    metrics         what it counts, as Prometheus metrics
    endpoint        /metrics, /healthz and /readyz on a loopback address
    activity        who reads and writes now, on all hosts
    stacks          what every thread does now, at SIGUSR1
    systemd         what systemd is notified of (sd_notify)
    logs            (a room) the log of a program that keeps running: it waits for nobody
    mounts          where imagefs is mounted on this host, and whether a mount answers
    host_users      users of this host as principals
"""
