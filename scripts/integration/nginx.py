"""Debian's nginx before the server: started on free ports with a configuration of the test's own.

Knows: nginx's command line and configuration. Must not know: what the server answers.
"""

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from server import wait_for

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

# As it stands in nginx's own documentation (https://nginx.org/en/docs/http/websocket.html), and the
# client's address with it.
HTTP = """
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
        # The other usual way: the same Connection for all, upgrade or not.
        location /plain/ {{
            proxy_pass http://{upstream}/;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
    # Connections to the server are kept, and go from client to client.
    upstream kept {{
        server {upstream};
        keepalive 1;
    }}
    server {{
        listen 127.0.0.1:{kept_port};
        location / {{
            proxy_pass http://kept;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
"""

# One version for each of the two ports (nginx sends version 1).
STREAM = """
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass {upstream};
        proxy_protocol on;
    }}
}}
"""


class Nginx:
    """One process of nginx, in the foreground, without workers of their own."""

    def __init__(self, upstream, stream=False):
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        assert Path(binary).exists() and STREAM_MODULE.exists(), "scripts/test installs nginx"
        self.folder = tempfile.mkdtemp(prefix="nginx-")
        self.port, self.kept_port = free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        load = f"load_module {STREAM_MODULE};\n" if stream else ""
        block = (STREAM if stream else HTTP).format(
            folder=self.folder, port=self.port, kept_port=self.kept_port, upstream=upstream
        )
        config = Path(self.folder, "nginx.conf")
        config.write_text(
            f"{load}daemon off;\nmaster_process off;\nerror_log stderr;\n"
            f"pid {self.folder}/pid;\nevents {{}}\n{block}"
        )
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [binary, "-e", "stderr", "-p", self.folder, "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        wait_for(self.is_up, "nginx to listen")

    def is_up(self):
        assert self.process.poll() is None, self.said()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def ws(self, path):
        return f"ws://{self.address}{path}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count):
    """Ports that nobody has at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
