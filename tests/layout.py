"""The layout in numbers: modules, rooms, sizes, floors and circles of imports.

    python -m tests.layout

A room is a package.  A floor is how high something stands above what it imports: what imports
nothing of its package is on floor 1.  `catalog`, say, has as many floors as the longest chain of
imports among its rooms and modules has links.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = tuple(name for name in ("catalog", "imagefs", "dav", "web") if (ROOT / name).is_dir())

MAX_FILE = 500
"""Lines of a file."""
MAX_FUNCTION = 50
"""Lines of a function, its docstring and its inner functions included."""
MAX_ROOM = 15
"""Modules of a room, besides its `__init__` and the rooms in it."""
MAX_FLOORS = 11
"""Floors of a package."""

_BY_ALEMBIC = "/migrations/versions/"
"""A folder that gets a file with each change of the schema, and none of them is changed again."""


@dataclass(frozen=True, slots=True)
class Sized:
    """Something that has a size."""

    name: str
    size: int

    def __str__(self) -> str:
        return f"{self.name}: {self.size}"


def files(*folders: str) -> list[Path]:
    """The Python files below some folders of the project, without migrations."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if _BY_ALEMBIC not in path.as_posix()]


def long_files(*folders: str) -> list[Sized]:
    """Files of more than `MAX_FILE` lines."""
    counted = [Sized(_name(path), len(path.read_text().splitlines())) for path in files(*folders)]
    return [found for found in counted if found.size > MAX_FILE]


def long_functions(*folders: str) -> list[Sized]:
    """Functions of more than `MAX_FUNCTION` lines."""
    return [
        Sized(f"{_name(path)}:{node.lineno} {node.name}", size)
        for path in files(*folders)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (size := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    ]


def rooms(*folders: str) -> list[Sized]:
    """Every package, and how many modules are in it."""
    inits = [path for path in files(*folders) if path.name == "__init__.py"]
    return [Sized(_name(path.parent), len(list(path.parent.glob("*.py"))) - 1) for path in inits]


def crowded_rooms(*folders: str) -> list[Sized]:
    """Rooms of more than `MAX_ROOM` modules."""
    return [room for room in rooms(*folders) if room.size > MAX_ROOM]


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _modules() -> dict[str, set[str]]:
    """What each module imports of the project."""
    graph = _graph()
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle() -> list[str]:
    """Modules that import each other in a circle, if any do."""
    return _circle(_modules())


def _circle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def children(package: str) -> dict[str, set[str]]:
    """The rooms and modules directly in a package, and which of each other they import."""
    graph = _graph()
    own = {child: {child, *graph.find_descendants(child)} for child in graph.find_children(package)}
    child_of = {module: child for child, modules in own.items() for module in modules}
    imports = _modules()
    return {
        child: {
            child_of[each] for module in modules for each in imports[module] if each in child_of
        }
        - {child}
        for child, modules in own.items()
    }


def floors(package: str) -> list[list[str]]:
    """What stands on each floor of a package, from the ground up; a circle ends it."""
    found: list[list[str]] = []
    sorter = TopologicalSorter(children(package))
    try:
        sorter.prepare()
    except CycleError:
        return found
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(sorted(name.rpartition(".")[2] for name in ready))
        sorter.done(*ready)
    return found


def imported_test_files() -> list[str]:
    """Imports, in tests, of a file of tests: what two need belongs into `tests/kit/`."""
    return [
        f"{_name(path)} imports {module}"
        for path in files("tests")
        for module in _imported(ast.parse(path.read_text()))
        if module.startswith("tests.") and ".test_" in module
    ]


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _report() -> Iterator[str]:
    every = rooms(*PACKAGES)
    largest = max(every, key=lambda room: room.size)
    yield f"modules: {len(_modules())}"
    yield f"rooms: {len(every)}, the largest is {largest}"
    for title, found in (
        (f"rooms of more than {MAX_ROOM} modules", crowded_rooms(*PACKAGES)),
        (f"files of more than {MAX_FILE} lines", long_files(*PACKAGES, "tests")),
        (f"functions of more than {MAX_FUNCTION} lines", long_functions(*PACKAGES)),
    ):
        yield f"{title}: {len(found)}"
        yield from (f"    {each}" for each in found)
    yield f"circle of imports: {' -> '.join(circle()) or 'none'}"
    for package in PACKAGES:
        circled = _circle(children(package))
        found_floors = floors(package)
        yield f"floors of {package}: {len(found_floors) or 'a circle: ' + ' -> '.join(circled)}"
        for number, names in reversed(list(enumerate(found_floors, 1))):
            yield f"    {number:2}  {' '.join(names)}"


if __name__ == "__main__":
    print("\n".join(_report()))  # noqa: T201
