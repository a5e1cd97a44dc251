"""The log of one serving process, as the section `[log]` of the configuration says.

Threading: any thread but trio's; opening a file may wait.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from catalog.errors import CatalogError, InvalidSettings
from catalog.service.logs.handlers import ToFile, ToJournal, ToStderr, is_journal
from catalog.settings import LogSettings, Settings

_log = logging.getLogger(__name__)

_LEVELS = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()}


class ServiceLog:
    """Where the lines of this process go, and which of them."""

    def __init__(self, reread: Callable[[], Settings], process: Mapping[str, str]) -> None:
        """`reread` reads the configuration anew; `process` are fields of every line.

        Options of the command line (`-vv`) log no less than they ask for.
        """
        self._reread = reread
        self._process = {**process, "host": os.uname().nodename}
        asked = logging.getLogger().level
        # INFO is what a service logs anyway, and the configuration may want less.
        self._verbosity = asked if asked < logging.INFO else logging.CRITICAL
        self._named: list[str] = []
        self._file: ToFile | None = None
        self._other: logging.Handler = logging.NullHandler()

    def open(self, settings: Settings, other: logging.Handler | None = None) -> None:
        """Log to the configured file; without one to `other`, or else to standard error.

        Raises InvalidSettings if the file cannot be opened.
        """
        self._other = other or _of_stderr(self._process)
        try:
            self._use(settings.log)
        except OSError as error:
            reason = f"log.file: {settings.log.file}: {error.strerror}"
            raise InvalidSettings(settings.source, reason) from error

    def reload(self) -> None:
        """Read the section `[log]` anew, and open its file anew, as after a rotation.

        A mistake in the configuration is logged, and all stays as it was.
        """
        try:
            self._use(self._reread().log)
        except (CatalogError, OSError) as error:
            _log.warning("the log's settings stay as they are: %s", error)
        else:
            _log.info("the log's settings were read again")

    def close(self) -> None:
        """Write what still waits for a file."""
        if self._file is not None:
            self._file.close()

    def _use(self, settings: LogSettings) -> None:
        """Log as `settings` say.  Raises OSError if the file cannot be opened; then as before."""
        old, new = self._file, None
        if settings.file is not None:
            new = ToFile(settings.file, self._process)
        self._use_levels(settings)
        self._file = new
        logging.getLogger().handlers[:] = [new or self._other]
        if old is not None:
            old.close()

    def _use_levels(self, settings: LogSettings) -> None:
        for name in self._named:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger().setLevel(min(_LEVELS[settings.level], self._verbosity))
        for name, level in settings.levels.items():
            logging.getLogger(name).setLevel(_LEVELS[level])
        self._named = list(settings.levels)


def _of_stderr(process: Mapping[str, str]) -> logging.Handler:
    """Standard error, or the journal itself if that is where standard error leads."""
    return ToJournal(process) if is_journal() else ToStderr()
