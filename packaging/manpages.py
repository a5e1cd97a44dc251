"""The manual pages imagefs(1) and imagefs.toml(5), written to standard output.

python packaging/manpages.py command            from the commands themselves
python packaging/manpages.py settings FILE      from the example configuration

Nothing is said here that the help or the example does not say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path

import click

from catalog.cli.program import imagefs

FILES = {
    "/etc/imagefs/imagefs.toml": "The configuration, see imagefs.toml(5).",
    "~/.config/imagefs/imagefs.toml": "The configuration of a user, if there is no other.",
    "/var/lib/imagefs": "Database, images and cache, unless they are configured elsewhere.",
    "/usr/share/doc/imagefs": "What the catalog promises, stores, exit codes, operation.",
}
VARIABLES = {
    "IMAGEFS_CONFIG": "The configuration to read.",
    "IMAGEFS_STATE": "The folder of database, images and cache, without a configuration.",
}
KEY = re.compile(r"#?(\w+) = ")
SECTION = re.compile(r'#?\[([\w."/:-]+)\]$')


def quoted(text: str) -> str:
    """Plain text for troff: no backslash, dash or leading dot is taken for a command."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.M)


def head(name: str, section: int, about: str) -> Iterator[str]:
    """The title, and the line that apropos(1) finds."""
    yield f'.TH {name.upper()} {section} "" "imagefs {version("imagefs")}"'
    yield ".SH NAME"
    yield f"{quoted(name)} \\- {quoted(about[0].lower() + about[1:].rstrip('.'))}"


def described(items: dict[str, str]) -> Iterator[str]:
    """A list of names, each with its description."""
    for name, text in items.items():
        yield from (".TP", rf"\fB{quoted(name)}\fR", quoted(text))


def paragraphs(text: str) -> Iterator[str]:
    """Text whose paragraphs are apart by an empty line."""
    for paragraph in cleandoc(text).replace("\b\n", "").split("\n\n"):
        yield from (".PP", quoted(paragraph))


def options(command: click.Command, context: click.Context) -> dict[str, str]:
    """The options of a command with their help, as `--help` has them."""
    given = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [each.get_help_record(context) for each in given]
    return dict(each for each in records if each is not None)


def commands(group: click.Group, parent: click.Context) -> Iterator[str]:
    """A section for each command of a group, and for the commands of groups in it."""
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, parent, info_name=name)
        if isinstance(command, click.Group):
            yield from commands(command, context)
            continue
        # The parents take no options here: `imagefs cache warm`, as one types it.
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f".SS {quoted(usage)}"
        yield from paragraphs(command.help or "")
        shown = options(command, context)
        yield from described({each: shown[each] for each in shown if each != "-h, --help"})


def command_page() -> Iterator[str]:
    """imagefs(1)."""
    context = click.Context(imagefs, info_name="imagefs", **imagefs.context_settings)
    yield from head("imagefs", 1, imagefs.help or "")
    yield from (
        ".SH SYNOPSIS",
        r".B imagefs \fR[\fIOPTION\fR...] \fICOMMAND\fR [\fIARGUMENT\fR...]",
    )
    yield from (".SH OPTIONS", *described(options(imagefs, context)))
    yield from (".SH COMMANDS", *commands(imagefs, context))
    yield from (".SH ENVIRONMENT", *described(VARIABLES))
    yield from (".SH FILES", *described(FILES))
    yield from (".SH SEE ALSO", ".BR imagefs.toml (5),", ".BR mount.imagefs (8)")


def settings_page(example: str) -> Iterator[str]:
    """imagefs.toml(5), from an example that has every key below a comment on it."""
    about, _, body = example.partition("\n\n")
    yield from head("imagefs.toml", 5, "the configuration of imagefs")
    yield ".SH DESCRIPTION"
    yield from paragraphs(about.replace("# ", ""))
    yield ".SH SECTIONS"
    for block in body.split("\n\n"):
        yield from settings_block(block.splitlines())


def settings_block(lines: list[str]) -> Iterator[str]:
    """A section, or one or more keys, with the comments that stand above each."""
    comment: list[str] = []
    for line in lines:
        if found := SECTION.match(line):
            yield f".SS [{quoted(found[1])}]"
            yield quoted("\n".join(comment))
        elif KEY.match(line):
            yield from (".TP", rf"\fB{quoted(line)}\fR", quoted("\n".join(comment)))
        else:
            comment.append(line.removeprefix("#").strip())
            continue
        comment = []
    if comment:
        yield from (".PP", quoted("\n".join(comment)))


def main(arguments: list[str]) -> None:
    """Print the page that is asked for."""
    match arguments:
        case ["command"]:
            page = command_page()
        case ["settings", example]:
            page = settings_page(Path(example).read_text())
        case _:
            sys.exit(__doc__)
    lines = "\n".join(page)
    # An empty line would be an empty line on the page.
    sys.stdout.write(re.sub(r"\n{2,}", "\n", lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
