"""The command `imagefs` itself: its subcommands, its options, and how it ends.

Each package contributes a sequence of click commands through the entry-point group
`imagefs.commands`.  A command returns its exit code, None for 0, and raises the errors of the
catalog; here an error becomes one line and an exit code.
"""

from __future__ import annotations

import errno
import logging
import signal
import sys
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import click

from catalog.cli.console.exit_codes import (
    FAILURE,
    INTERRUPTED,
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    TRY_AGAIN,
    USAGE,
    exit_code,
)
from catalog.cli.console.output import report
from catalog.cli.console.streams import drop_output, open_missing, speak_utf8
from catalog.cli.session import Session
from catalog.errors import CatalogError

_LOCAL_ERRORS = {
    errno.ENOENT: NOT_FOUND,
    errno.EACCES: NOT_ALLOWED,
    errno.EPERM: NOT_ALLOWED,
    errno.EROFS: NOT_ALLOWED,
    errno.ENOSPC: TRY_AGAIN,
    errno.EDQUOT: TRY_AGAIN,
}
"""Exit codes for errors of the local file that an image is added from or exported to."""


class Program(click.Group):
    """The group of all contributed commands; it ends the process as docs/commands.md says."""

    @cached_property
    def _contributed(self) -> dict[str, click.Command]:
        found: dict[str, click.Command] = {}
        for point in entry_points(group="imagefs.commands"):
            try:
                found |= {str(command.name): command for command in point.load()}
            except Exception as error:  # noqa: BLE001 - whatever breaks it, the others work
                package = point.value.partition(":")[0]
                report(f"the commands of {package} are missing: {error}")
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, for the help."""
        return sorted(self._contributed)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with that name."""
        return self._contributed.get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; after an unexpected failure, look for damage in the database."""
        try:
            return super().invoke(ctx)
        except (CatalogError, OSError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            session = ctx.find_object(Session)
            damage = None if session is None else session.damage()
            if damage is None:
                raise
            raise damage from error

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run one command and exit."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
            sys.stdout.flush()
        except CatalogError as error:
            report(error)
            code = exit_code(error)
        except click.ClickException as error:
            report(_usage(error))
            code = error.exit_code
        except click.Abort:
            report("interrupted")
            code = INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has closed it, as `head` does.
            drop_output()
            code = FAILURE
        except OSError as error:
            code = _local(error)
        except UnicodeEncodeError as error:
            # What is not UTF-8 in an argument, or in a password.
            report(f"{error.object!a} is not UTF-8")
            code = USAGE
        sys.exit(code or OK)


@click.group(
    cls=Program,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read this configuration.",
)
@click.option("-v", "--verbose", count=True, help="Tell more; -vv everything.")
@click.version_option(package_name="imagefs")
@click.pass_context
def imagefs(context: click.Context, config: Path | None, verbose: int) -> None:
    """A catalog of virtual-machine images, used as a file system."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="imagefs: %(message)s")
    context.obj = Session(config)
    context.call_on_close(context.obj.close)


def _local(error: OSError) -> int:
    """Tell what went wrong with a file of this host, or with standard output."""
    told = error.strerror or str(error)
    try:
        report(f"{error.filename}: {told}" if error.filename else told)
    except OSError:
        drop_output()
        report(f"standard output: {told}")
    return _LOCAL_ERRORS.get(error.errno or 0, FAILURE)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    if context is None:
        return error.format_message()
    return f"{error.format_message().rstrip('.')} (see '{context.command_path} --help')"


def _end(number: int, _frame: object) -> NoReturn:
    # As an exception it passes through every `finally`: uploads are given up cleanly.
    raise SystemExit(128 + number)


def main() -> NoReturn:
    """Run the command of this process."""
    open_missing()
    speak_utf8()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    imagefs.main(prog_name="imagefs")
