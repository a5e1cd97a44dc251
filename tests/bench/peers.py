"""Other web servers on loopback, started by the benchmarks and stopped by pid."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.programs import free_ports, program, running, wait_for_port
from web.server.listening import TlsFiles

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
    apache2 = program("apache2", "apache2")
    port = free_ports(1)[0]
    lines = [f"LoadModule {it}_module {_MODULES}/mod_{it}.so" for it in _LOADED]
    config = folder / "apache.conf"
    config.write_text(APACHE.format(folder=folder, port=port, modules="\n".join(lines)))
    # Its children refuse to be root, and must reach the folder.
    folder.chmod(0o711)
    for path in (folder, folder / "www"):
        shutil.chown(path, "www-data")
    with _running(folder, port, apache2, "-DFOREGROUND", "-f", config) as url:
        yield url


@contextmanager
def nginx(folder: Path, tls: TlsFiles) -> Iterator[str]:
    """nginx with TLS over `folder`/www; yields its URL, for the host name `images.test`."""
    port = free_ports(1)[0]
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, tls=tls))
    with _running(folder, port, program("nginx", "nginx-light"), "-c", config, "-p", folder):
        yield f"https://images.test:{port}"


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """`rclone serve webdav` over `folder`/www; yields its URL."""
    port = free_ports(1)[0]
    address = f"127.0.0.1:{port}"
    command = ("serve", "webdav", "--config=", "--addr", address, folder / "www")
    with _running(folder, port, program("rclone", "rclone"), *command) as url:
        yield url


@contextmanager
def _running(folder: Path, port: int, *command: str | Path) -> Iterator[str]:
    log = folder / "output.log"
    with running([str(word) for word in command], log) as process:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}"
