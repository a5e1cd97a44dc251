"""A link of the tests to a server that gives each connection so much and no more.

Object stores far away do: that is why clients read by several connections at once.  nginx
forwards, and limits what it sends; what comes from the client is not held back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.programs import free_ports, program, running, wait_for_port

_CONFIG = """
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
    upstream server {{ server 127.0.0.1:{server}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            # Signatures are made for the address of this end.
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffers 16 64k;
            proxy_max_temp_file_size 0;
            limit_rate {rate};
        }}
    }}
}}
"""


@contextmanager
def link(folder: Path, server: int, rate: int) -> Iterator[str]:
    """Forward to the port `server`, `rate` bytes a second for each answer; the URL to ask."""
    command = program("nginx", "nginx-light")
    folder.mkdir()
    (port,) = free_ports(1)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, server=server, rate=rate))
    log = folder / "nginx.log"
    with running([command, "-c", str(config), "-p", str(folder)], log) as process:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}"
