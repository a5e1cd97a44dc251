"""What a command's exit code says."""

from __future__ import annotations

from catalog import errors
from catalog.cli.console.exit_codes import EXIT_CODES
from catalog.errors import CatalogError
from tests.catalog.cli.command import Run, shown


def test_every_error_has_its_exit_code() -> None:
    """The table names each class of the tree, and nothing else."""

    def tree(cls: type[CatalogError]) -> set[type[CatalogError]]:
        return {cls}.union(*(tree(below) for below in cls.__subclasses__()))

    of_catalog = {cls for cls in tree(CatalogError) if cls.__module__ == errors.__name__}
    assert set(EXIT_CODES) == of_catalog


def test_some_of_several_failed(run: Run, image: str) -> None:
    """What can be done is done, each failure is told, and the code says partly."""
    result = run("deactivate", "/file/missing", image, code=3)
    assert "/file/missing" in result.stderr
    assert shown(run, image)["status"] == "deactivated"
    run("deactivate", "/file/missing", "/file/missing too", code=4)
