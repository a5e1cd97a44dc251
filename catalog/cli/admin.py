"""`imagefs init`, `store` and `config`: what is where."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catalog.cli.console.exit_codes import OK, exit_code
from catalog.cli.console.output import (
    human_size,
    json_array,
    json_document,
    json_option,
    line,
    printable,
    report,
)
from catalog.cli.session import Session, pass_session
from catalog.errors import CatalogError, InvalidSettings
from catalog.stores.base import Store

if TYPE_CHECKING:
    from catalog.upkeep.lost import GoneStore

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML takes without quotes."""


@click.command()
@click.option(
    "--emptied",
    multiple=True,
    metavar="STORE",
    help="Make this store anew, though the catalog has images there: they are lost.",
)
@pass_session
def init(session: Session, emptied: tuple[str, ...]) -> None:
    """Make the catalog: its database and the stores' folders.  What is there stays."""
    from catalog.service.bootstrap import COUNTED, has_catalog, make_catalog, unknown_data
    from catalog.service.configuration import database_of

    is_new = not has_catalog(session.settings)
    with closing(make_catalog(session.settings, emptied)) as catalog:
        for name, count in unknown_data(catalog) if is_new else ():
            many = str(count) if count < COUNTED else f"{count} or more"
            report(
                f"store {name} holds images of a catalog that is lost ({many}): restore a backup of"
                f" its database, or make images of them with 'imagefs adopt {name} --all'"
            )
    line(f"the catalog is ready: {database_of(session.settings)}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pass_session
def backup(session: Session, file: Path) -> None:
    """Write a checked copy of the catalog's database to FILE, also while others use it.

    The images' data is in the stores, and is not copied.
    """
    from catalog.upkeep.backup import backup as write

    session.require_admin("backup")
    write(session.settings.catalog.url, file.absolute())


@click.group(no_args_is_help=False)
def store() -> None:
    """The configured stores."""


@store.command("list")
@json_option
@pass_session
def list_stores(session: Session, as_json: bool) -> None:
    """List the stores, with their room and whether they answer."""
    from catalog.upkeep.lost import gone_stores

    stores = [_describe(session, each) for each in session.catalog.stores.values()]
    stores += [_describe_gone(gone) for gone in gone_stores(session.catalog)]
    if as_json:
        json_array(stores)
        return
    layout = "{:16}  {:12}  {:>9}  {:>10}  {:>10}  {}"
    line(layout.format("STORE", "TYPE", "IMAGES", "FREE", "TOTAL", "STATE"))
    for found in stores:
        state = printable(found["message"]) or "ok"
        line(
            layout.format(
                found["name"],
                found["type"],
                found["images"],
                human_size(found["free"]),
                human_size(found["total"]),
                f"{state} (default)" if found["default"] else state,
            )
        )


@store.command("forget")
@click.argument("name", metavar="STORE")
@click.option("--force", is_flag=True, help="Forget also the images that are nowhere else.")
@pass_session
def forget_store(session: Session, name: str, force: bool) -> None:
    """Forget STORE for good, which is no longer configured.  Its data is not touched."""
    from catalog.upkeep.lost import forget_store as forget

    session.require_admin("store forget")
    gone = forget(session.catalog, name, session.principal, force=force)
    line(f"{name} is forgotten: {gone.images} images were there, {gone.only_there} of them only")


def _describe_gone(gone: GoneStore) -> dict[str, Any]:
    message = f"not configured; {gone.only_there} images are nowhere else"
    room = {"free": None, "total": None}
    told = {"name": gone.name, "type": "", "default": False, "images": gone.images}
    return told | room | {"message": message}


def _describe(session: Session, store: Store) -> dict[str, Any]:
    """Everything about a store; `message` says why it does not answer, or is empty."""
    with session.catalog.read() as repository:
        images = repository.count_locations(store.name)
    message, total, free = "", None, None
    try:
        store.check()
        usage = store.usage()
        total, free = usage.total, usage.free
    except CatalogError as error:
        message = error.reason or error.summary
    return {
        "name": store.name,
        "type": getattr(session.settings.stores[store.name], "type", ""),
        "default": store.name == session.settings.catalog.default_store,
        "images": images,
        "free": free,
        "total": total,
        "message": message,
    }


@click.group(no_args_is_help=False)
def config() -> None:
    """The configuration."""


@config.command("show")
@json_option
@pass_session
def show_config(session: Session, as_json: bool) -> None:
    """Show the configuration that is used, with all defaults and without secrets."""
    from catalog.service.configuration import describe

    described = describe(session.settings)
    if as_json:
        json_document(described)
        return
    line(f"# {described.pop('source')}")
    stores = described.pop("stores")
    sections = described | {f"stores.{name}": section for name, section in stores.items()}
    for name, section in sections.items():
        _print_section(name, section)


def _print_section(name: str, section: dict[str, Any]) -> None:
    """Print a table of the configuration as TOML, then the tables in it."""
    line(f"[{name}]")
    for key, value in section.items():
        if not isinstance(value, dict):
            # Numbers, texts, truth values and lists look the same in JSON and in TOML.
            text = json.dumps(value, ensure_ascii=False)
            line(f"# {key} is unset" if value is None else f"{key} = {text}")
    for key, value in section.items():
        if isinstance(value, dict):
            _print_section(f"{name}.{key if _BARE_KEY.fullmatch(key) else json.dumps(key)}", value)


@config.command("check")
@pass_session
def check_config(session: Session) -> int:
    """Tell whether the configuration is valid, every section of it."""
    from catalog.service.configuration import problems_of

    settings = session.settings
    problems = [InvalidSettings(settings.source, told) for told in problems_of(settings).values()]
    for problem in problems:
        report(problem)
    _all_sections = settings.sections  # each is validated when it is asked for
    if problems:
        return exit_code(problems[0])
    line(f"{settings.source}: ok")
    return OK
