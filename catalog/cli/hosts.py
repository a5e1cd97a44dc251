"""`imagefs host list|show|forget`: the hosts that serve the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from catalog.cli.console.output import json_array, json_document, json_option, line, printable
from catalog.cli.session import Session, pass_session

if TYPE_CHECKING:
    from catalog.upkeep.hosts import Host

_LAYOUT = "{:8}  {:24}  {:10}  {:>8}  {:>8}  {:>8}  {}"
_HEADER = ("STATE", "HOST", "VERSION", "SEEN", "OPEN", "UPLOADS", "SERVES")


@click.group()
def host() -> None:
    """Show the hosts that serve the catalog, and forget those that are gone for good."""


@host.command("list")
@json_option
@pass_session
def list_(session: Session, as_json: bool) -> None:
    """List the hosts: whether they live, what they serve, how much is open there."""
    from catalog.upkeep.hosts import hosts

    found = [_describe(each) for each in hosts(session.catalog)]
    if as_json:
        json_array(found)
        return
    line(_LAYOUT.format(*_HEADER))
    for each in found:
        places = ", ".join(service["place"] for service in each["serves"]) or "-"
        versions = ", ".join(sorted({service["version"] for service in each["serves"]})) or "-"
        row = (each["state"], printable(each["host"]), versions, _seconds(each["seen"]))
        line(_LAYOUT.format(*row, each["open"], each["uploads"], printable(places)))


@host.command()
@click.argument("name", metavar="HOST")
@json_option
@pass_session
def show(session: Session, name: str, as_json: bool) -> None:
    """Show what one HOST serves, uploads and has open."""
    from catalog.upkeep.hosts import host_called

    found = _describe(host_called(session.catalog, name))
    if as_json:
        json_document(found)
        return
    line(f"{'host':12}{printable(found['host'])}")
    line(f"{'state':12}{found['state']}")
    for service in found["serves"]:
        told = f"{printable(service['place'])} (pid {service['pid']}, {service['version']})"
        line(f"{service['kind']:12}{told}, seen {_seconds(service['seen'])} ago")
    line(f"{'uploads':12}{found['uploads']}")
    line(f"{'open':12}{found['open']}")


@host.command()
@click.argument("name", metavar="HOST")
@click.option("--force", is_flag=True, help="Also a host that has been heard of just now.")
@pass_session
def forget(session: Session, name: str, force: bool) -> None:
    """Give up what HOST was doing, which will not come back.

    Its uploads are killed, and what it had open counts as closed.  A host that was only cut off
    registers again when it is back.
    """
    from catalog.upkeep.hosts import forget as forget_host

    session.require_admin("host forget")
    killed = forget_host(session.catalog, name, session.principal, force=force)
    line(f"forgot {printable(name)}: {len(killed)} uploads given up")


def _describe(found: Host) -> dict[str, Any]:
    from catalog.model.clock import now

    at = now()
    return {
        "host": found.name,
        "state": str(found.state),
        "seen": None if found.seen_at is None else int((at - found.seen_at).total_seconds()),
        "open": found.open,
        "uploads": len(found.uploads),
        "serves": [
            {
                "kind": str(each.kind),
                "place": each.place,
                "pid": each.process.pid,
                "version": each.version,
                "since": each.registered_at.isoformat(),
                "seen": int((at - each.heartbeat_at).total_seconds()),
            }
            for each in found.services
        ],
    }


def _seconds(age: int | None) -> str:
    if age is None:
        return "-"
    return f"{age} s" if age < 120 else f"{age // 60} min"
