"""nginx, the ceiling of HTTP: one process that answers every request with a constant."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches.load import RunFailed, running

NGINX_CONF = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {authority};
        location / {{ return 200 '{body}'; }}
    }}
}}
"""


def program(name: str, package: str) -> str:
    """Where a program is that Debian has. Raises RunFailed, with the command that installs it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise RunFailed(f"the HTTP figures need {name}. Install: apt-get install -y {package}")
    return found


def free_address(path: str = "/mcp") -> str:
    """An HTTP address on loopback that nobody listens on yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}{path}"


@contextmanager
def nginx(body: str) -> Iterator[tuple[str, int]]:
    """One process of nginx that answers every request with `body`: its address and pid."""
    command = program("nginx", "nginx-light")
    if any(letter in body for letter in "'$\\"):
        raise RunFailed(f"nginx takes ', $ and \\ in its configuration for its own: {body}")
    address = free_address("/")
    authority = address.partition("://")[2].rstrip("/")
    with tempfile.TemporaryDirectory(prefix="mcpfast-bench-") as folder:
        conf = Path(folder) / "nginx.conf"
        conf.write_text(NGINX_CONF.format(folder=folder, authority=authority, body=body))
        with running([command, "-p", folder, "-e", f"{folder}/error.log", "-c", str(conf)], address) as pid:
            yield address, pid


@contextmanager
def kept(content: bytes) -> Iterator[str]:
    """The path of a file with this content, for as long as the block runs."""
    with tempfile.NamedTemporaryFile(prefix="mcpfast-bench-") as file:
        file.write(content)
        file.flush()
        yield file.name
