"""`imagefs user` and `imagefs member`: who may log in, and who reads a shared image."""

from __future__ import annotations

import sys

import click

from catalog.cli.arguments.targets import find
from catalog.cli.console.output import json_array, json_option, line, printable
from catalog.cli.session import Session, pass_session
from catalog.errors import NotFound
from catalog.model.access import Role


@click.group(no_args_is_help=False)
def user() -> None:
    """The users who may log in over the network."""


@user.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([str(role) for role in Role]),
    default=str(Role.MEMBER),
    show_default=True,
    help="A reader changes nothing, an admin may do everything.",
)
@click.option("--project", default="", help="Whose images they are; else the user's own.")
@pass_session
def add_user(session: Session, name: str, role: str, project: str) -> None:
    """Add the user NAME; the password is asked for, or the first line of standard input."""
    from catalog.rules.users import add_user

    session.require_admin("user add")
    catalog = session.catalog
    add_user(catalog, name, _password(), role=Role(role), project=project)


@user.command("list")
@json_option
@pass_session
def list_users(session: Session, as_json: bool) -> None:
    """List the users."""
    session.require_admin("user list")
    with session.catalog.read() as repository:
        users = repository.users()
    if as_json:
        json_array({"name": u.name, "role": u.role, "project": u.project or None} for u in users)
        return
    layout = "{:8}  {:24}  {}"
    line(layout.format("ROLE", "PROJECT", "NAME"))
    for found in users:
        line(layout.format(found.role, printable(found.project) or "-", printable(found.name)))


@user.command("remove")
@click.argument("name")
@pass_session
def remove_user(session: Session, name: str) -> None:
    """Remove the user NAME, who is refused from now on.  The images stay."""
    from catalog.rules.users import remove_user

    session.require_admin("user remove")
    remove_user(session.catalog, name)


@user.command("password")
@click.argument("name")
@pass_session
def change_password(session: Session, name: str) -> None:
    """Give the user NAME another password: asked for, or a line of standard input."""
    from catalog.rules.users import set_password

    session.require_admin("user password")
    with session.catalog.read() as repository:
        if repository.user(name) is None:
            raise NotFound(name, "there is no user of this name")
    set_password(session.catalog, name, _password())


@click.group(no_args_is_help=False)
def member() -> None:
    """Who reads a shared image besides its owner: projects, and users by name."""


@member.command("add")
@click.argument("image")
@click.argument("project")
@pass_session
def add_member(session: Session, image: str, project: str) -> None:
    """Let PROJECT read IMAGE, whose visibility is `shared`."""
    from catalog.rules.members import add_member

    add_member(session.catalog, find(session.vfs, image).image.number, project, session.principal)


@member.command("remove")
@click.argument("image")
@click.argument("project")
@pass_session
def remove_member(session: Session, image: str, project: str) -> None:
    """Let PROJECT no longer read IMAGE."""
    from catalog.rules.members import remove_member

    number = find(session.vfs, image).image.number
    remove_member(session.catalog, number, project, session.principal)


@member.command("list")
@click.argument("image")
@json_option
@pass_session
def list_members(session: Session, image: str, as_json: bool) -> None:
    """List the members of IMAGE."""
    from catalog.rules.members import check_see

    found = find(session.vfs, image).image
    check_see(session.catalog, found, session.principal)
    members = session.catalog.members_of(found)
    if as_json:
        json_array(sorted(members))
        return
    for name in sorted(members):
        line(printable(name))


def _password() -> str:
    """Read a password; never from an argument, as everybody can read those in /proc."""
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    return sys.stdin.readline().rstrip("\n")
