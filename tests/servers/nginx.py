"""nginx on loopback, over HTTP and over HTTPS with an authority of our own.

Its document root is also served at paths that ask who we are: `/basic/`, `/bearer/` and
(over HTTPS) `/client/`, the last by a certificate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.certificates import NAME, make_certificates
from tests.servers.programs import free_ports, program, running, wait_for_port

USER, PASSWORD, TOKEN = "mirror", "hUnter/2+=", "tok.en-1~2=="


_HEAD = """
user root;
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
    {servers}
}}
"""

_SERVER = """\
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        ssl_client_certificate {folder}/authority.pem;
        ssl_verify_client optional;
        root {folder}/www;
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /out-of-tls {{ return 302 http://127.0.0.1:{port}/a; }}
        location /basic/ {{
            auth_basic "images"; auth_basic_user_file {folder}/users;
            alias {folder}/www/;
        }}
        location /bearer/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            alias {folder}/www/;
        }}
        location /client/ {{
            if ($ssl_client_verify != SUCCESS) {{ return 403; }}
            alias {folder}/www/;
        }}
    }}
"""


@dataclass(frozen=True, slots=True)
class WebServer:
    """A running nginx that serves the files of `root`."""

    root: Path
    url: str
    tls_url: str
    """For the host name NAME, which the caller resolves."""
    folder: Path
    """Of its certificates: see `certificates`."""

    @property
    def port(self) -> int:
        """Of HTTP."""
        return int(self.url.rpartition(":")[2])

    @property
    def authority(self) -> Path:
        """The certificate to trust."""
        return self.folder / "authority.pem"

    def certificate(self, name: str) -> tuple[Path, Path]:
        """The certificate and key of `name`."""
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


@contextmanager
def running_nginx(folder: Path, port: int, servers: str) -> Iterator[None]:
    """Run nginx in `folder`, with `servers` in its `http` block; it answers at `port`."""
    command = program("nginx", "nginx-light")
    config, log = folder / "nginx.conf", folder / "nginx.log"
    config.write_text(_HEAD.format(folder=folder, servers=servers))
    with running([command, "-c", str(config), "-p", str(folder)], log) as process:
        wait_for_port(port, process, log)
        yield


@contextmanager
def nginx(folder: Path) -> Iterator[WebServer]:
    """Serve what is in `folder`/www."""
    (folder / "www").mkdir()
    (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    make_certificates(folder)
    port, tls_port = free_ports(2)
    server = _SERVER.format(folder=folder, port=port, tls_port=tls_port, token=TOKEN)
    with running_nginx(folder, port, server):
        yield WebServer(
            folder / "www", f"http://127.0.0.1:{port}", f"https://{NAME}:{tls_port}", folder
        )
