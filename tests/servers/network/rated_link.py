"""A link of the tests to a server that gives each connection so much and no more.

Object stores far away do: that is why clients read by several connections at once.  nginx
forwards, and limits what it sends; what comes from the client is not held back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.nginx import running_nginx
from tests.servers.programs import free_ports

_SERVER = """\
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
"""


@contextmanager
def rated_link(folder: Path, server: int, rate: int) -> Iterator[str]:
    """Forward to the port `server`, `rate` bytes a second for each answer; the URL to ask."""
    folder.mkdir()
    (port,) = free_ports(1)
    with running_nginx(folder, port, _SERVER.format(port=port, server=server, rate=rate)):
        yield f"http://127.0.0.1:{port}"
