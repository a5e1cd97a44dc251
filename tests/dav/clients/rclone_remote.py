"""A server as rclone(1) is told of it."""

from __future__ import annotations

import os

from tests.kit.service import PASSWORD, USER, Service
from tests.kit.tools import run


def environment(service: Service, vendor: str) -> dict[str, str]:
    """A remote `images:` without a configuration file."""
    settings = {"type": "webdav", "url": service.url, "vendor": vendor}
    if service.tls:
        obscured = run("rclone", "obscure", PASSWORD).strip()
        settings |= {"user": USER, "pass": obscured}
    names = {f"RCLONE_CONFIG_IMAGES_{name.upper()}": value for name, value in settings.items()}
    return os.environ | names | {"RCLONE_CONFIG": "/notfound"}
