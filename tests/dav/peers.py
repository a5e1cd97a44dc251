"""Other web servers on loopback, started by the benchmarks and stopped by pid."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dav.server import TlsFiles

_START_TIMEOUT = 20.0

APACHE = """
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
ErrorLog {folder}/apache.log
User www-data
Group www-data
{modules}
# Apache takes 1 GiB by default.
LimitRequestBody 0
DocumentRoot {folder}/www
DavLockDB {folder}/locks
<Directory {folder}/www>
    Require all granted
    Dav On
</Directory>
"""
_MODULES = "/usr/lib/apache2/modules"
_LOADED = ("mpm_event", "authz_core", "dav", "dav_fs")

NGINX = """
user root;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {tls.certificate};
        ssl_certificate_key {tls.key};
        root {folder}/www;
    }}
}}
"""


@contextmanager
def apache(folder: Path) -> Iterator[str]:
    """Apache with mod_dav over `folder`/www, below a path open to all; yields its URL."""
    program = _program("apache2", "apache2")
    port = _free_port()
    lines = [f"LoadModule {it}_module {_MODULES}/mod_{it}.so" for it in _LOADED]
    config = folder / "apache.conf"
    config.write_text(APACHE.format(folder=folder, port=port, modules="\n".join(lines)))
    # Its children refuse to be root, and must reach the folder.
    folder.chmod(0o711)
    for path in (folder, folder / "www"):
        shutil.chown(path, "www-data")
    with _running(port, program, "-DFOREGROUND", "-f", config) as url:
        yield url


@contextmanager
def nginx(folder: Path, tls: TlsFiles) -> Iterator[str]:
    """nginx with TLS over `folder`/www; yields its URL, for the host name `images.test`."""
    program = _program("nginx", "nginx-light")
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, tls=tls))
    with _running(port, program, "-c", config, "-p", folder):
        yield f"https://images.test:{port}"


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """`rclone serve webdav` over `folder`/www; yields its URL."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    command = ("serve", "webdav", "--config=", "--addr", address, folder / "www")
    with _running(port, _program("rclone", "rclone"), *command) as url:
        yield url


@contextmanager
def _running(port: int, *command: str | Path) -> Iterator[str]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_TIMEOUT
        while not _answers(port):
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < until, f"{command[0]} does not answer"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str, package: str) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin"
    if not shutil.which(name, path=path) and os.geteuid() == 0:
        # RUNLEVEL=1: the package must not start a server of its own.
        install = ["apt-get", "install", "-y", "--no-install-recommends", package]
        subprocess.run(install, env=os.environ | {"RUNLEVEL": "1"}, check=False)
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed (package {package})")
    return found
