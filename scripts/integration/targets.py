"""Push servers of others for the load generator to run against: started on free ports, and stopped.

Knows: their command lines and configurations. Must not know: what the load generator does.
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from nginx import STREAM_MODULE, free_ports
from server import TARGET, wait_for

HERE = Path(__file__).parent
NODE_MODULES = Path(os.environ.get("URINGCAST_NODE_MODULES", TARGET / "node" / "node_modules"))
TUNGSTENITE = Path(
    os.environ.get("URINGCAST_TUNGSTENITE", TARGET / "tungstenite/debug/client-tungstenite")
).with_name("server-tungstenite")
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
STOP_S = 10

# As in Nchan's documentation (https://nchan.io), with few requests over one connection.
NCHAN = """
load_module {module};
daemon off;
user {user};
worker_processes 1;
error_log stderr;
pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 30;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location = /sub {{
            nchan_subscriber websocket;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
            nchan_websocket_ping_interval 30s;
            nchan_deflate_message_for_websocket on;
        }}
        location = /pub {{
            nchan_publisher http websocket;
            nchan_channel_id bench;
            nchan_message_buffer_length 1000;
            nchan_deflate_message_for_websocket on;
        }}
    }}
}}
"""

# TLS in front of a server that has none.
TLS = """
load_module {module};
daemon off;
master_process off;
error_log stderr;
pid {folder}/pid;
events {{ worker_connections 4096; }}
stream {{
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    server {{
        listen 127.0.0.1:{port} ssl;
        proxy_pass {data};
    }}
    server {{
        listen 127.0.0.1:{publish_port} ssl;
        proxy_pass {publish};
    }}
}}
"""

NATS = """
listen: "127.0.0.1:{client_port}"
ping_interval: "{ping_interval}"
websocket {{
    listen: "127.0.0.1:{port}"
    no_tls: true
    compression: true
}}
"""


class Target:
    """A server in the foreground: either it has a port given (`listens`), or it prints one."""

    def __init__(self, *command, listens=None, config=None, **values):
        program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
        assert Path(program).exists(), f"{command[0]} is missing: `scripts/test prepare` has it"
        self.folder = Path(tempfile.mkdtemp(prefix="target-"))
        if config is not None:
            (self.folder / "config").write_text(config.format(folder=self.folder, **values))
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [program, *(str(each).replace("FOLDER", str(self.folder)) for each in command[1:])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if listens is None else self.log,
            stderr=self.log,
            env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
            text=True,
        )
        try:
            self.port = listens or self.first_line()
            wait_for(self.is_up, f"{command[0]} to listen", 15)
        except BaseException:
            self.stop()
            raise

    def is_up(self):
        assert self.process.poll() is None, self.said()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def first_line(self):
        line = self.process.stdout.readline().strip()
        assert line.isdigit(), (line, self.said())
        return int(line)

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def url(self, scheme, path="/"):
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def nchan(certificate, key):
    """Debian's nginx with its module; `tls_port` is the same over TLS."""
    assert NCHAN_MODULE.exists(), (
        "libnginx-mod-nchan is missing: `scripts/test prepare` installs it"
    )
    port, tls_port = free_ports(2)
    server = Target(
        *("nginx", "-e", "stderr", "-p", "FOLDER", "-c", "FOLDER/config"),
        listens=port,
        config=NCHAN,
        **{"module": NCHAN_MODULE, "user": getpass.getuser(), "port": port, "tls_port": tls_port},
        **{"certificate": certificate, "key": key},
    )
    server.tls_port = tls_port
    return server


def tls_before(upstream, certificate, key):
    """nginx, and TLS in it, before our own server's two ports."""
    port, publish_port = free_ports(2)
    server = Target(
        *("nginx", "-e", "stderr", "-p", "FOLDER", "-c", "FOLDER/config"),
        listens=port,
        config=TLS,
        **{"module": STREAM_MODULE, "port": port, "publish_port": publish_port},
        **{"certificate": certificate, "key": key},
        **{"data": upstream.data, "publish": upstream.publish},
    )
    server.publish_port = publish_port
    return server


def nats(ping_interval="10m"):
    """Debian's nats-server with its WebSocket. Its pings are messages of its own protocol."""
    client_port, port = free_ports(2)
    return Target(
        *("nats-server", "-c", "FOLDER/config"),
        listens=port,
        config=NATS,
        **{"client_port": client_port, "port": port, "ping_interval": ping_interval},
    )


def npm_ws(*words):
    """A broadcasting server on npm's ws; the words are in its first lines."""
    assert NODE_MODULES.is_dir(), "ws is missing: `scripts/test prepare` installs it"
    return Target("node", HERE / "node" / "broadcast.js", *words)


def tungstenite():
    """The same on tokio-tungstenite."""
    assert TUNGSTENITE.exists(), f"{TUNGSTENITE} is missing: `scripts/test build` builds it"
    return Target(TUNGSTENITE)


def python_tls(certificate, key):
    """The same on Python's websockets, over TLS."""
    return Target(sys.executable, HERE / "broadcast_tls.py", certificate, key)


def certificate(folder, names="IP:127.0.0.1,DNS:localhost"):
    """(certificate, key) of these names, signed by itself."""
    files = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", f"subjectAltName={names}"]
        + ["-out", files[0], "-keyout", files[1]],
        check=True,
        capture_output=True,
    )
    return files
