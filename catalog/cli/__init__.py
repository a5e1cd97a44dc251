"""The command `imagefs`, and the commands that need only the catalog.

Scope: arguments in, lines and exit codes out; what a command does is in `catalog`.  Threading:
one thread.

A command imports the catalog's modules only when it runs: loading them takes half a second, and
`imagefs --help` and the shell's completion do not need them.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from catalog.cli import (
    admin,
    cache,
    changing,
    checking,
    database,
    doctor,
    hosts,
    in_progress,
    listing,
    stores,
    transfer,
    users,
)
from catalog.cli.program import main

__all__ = ["commands", "main"]

commands: Sequence[click.Command] = (
    admin.init,
    admin.backup,
    database.dump,
    database.load,
    database.db,
    listing.list_images,
    listing.show,
    listing.log,
    transfer.add,
    transfer.export,
    transfer.replicate,
    stores.evacuate,
    stores.adopt,
    changing.set_fields,
    changing.unset,
    changing.tag,
    changing.deactivate,
    changing.reactivate,
    changing.delete,
    changing.restore,
    in_progress.uploads,
    in_progress.abort,
    in_progress.top,
    checking.verify,
    checking.scrub,
    checking.fsck,
    admin.store,
    admin.config,
    cache.cache,
    hosts.host,
    users.user,
    users.member,
    doctor.doctor,
)
"""What this package contributes to the entry-point group `imagefs.commands`."""
