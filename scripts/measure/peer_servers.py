"""Other people's servers: the command, the configuration and the protocol of each.

Knows: how each is told its ports, processors and threads. Must not know: what load they get. Everything they
need is installed by `scripts/measure/setup`.

Each is set up as somebody would who wants speed, and so that a slow subscriber loses nothing: queues have no bound,
or one that no run reaches.
"""

import getpass
from pathlib import Path

from servers import ROOT, TARGET, Kind

PEERS = ROOT / "benches" / "peers"
BUILT = TARGET / "peers" / "release"
PYTHON = TARGET / "measure" / "bin" / "python"
NODE_MODULES = TARGET / "node" / "node_modules"
NGINX = Path("/usr/sbin/nginx")
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NATS = Path("/usr/sbin/nats-server")

# As in Nchan's documentation (https://nchan.io). One message is kept: who subscribes wants what comes.
NCHAN_CONFIG = """
load_module {module};
daemon off;
user {user};
worker_processes {threads};
worker_cpu_affinity {affinity};
worker_rlimit_nofile 20000;
error_log stderr;
pid {folder}/pid;
events {{
    worker_connections 20000;
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    tcp_nodelay on;
    nchan_shared_memory_size 512M;
    server {{
        listen 127.0.0.1:{port} backlog=4096{reuseport};
        location = /sub {{
            nchan_subscriber websocket;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
        location = /pub {{
            nchan_publisher websocket;
            nchan_channel_id bench;
            nchan_message_buffer_length 1000;
        }}
    }}
}}
"""

NATS_CONFIG = """
listen: "127.0.0.1:{client_port}"
max_connections: 100000
max_pending: 1073741824
write_deadline: "60s"
ping_interval: "10m"
websocket {{
    listen: "127.0.0.1:{port}"
    no_tls: true
}}
"""
NATS_CONNECT = r'CONNECT {"verbose":false}\r\n'
NATS_SUBSCRIBE = r"SUB bench {n}\r\nPING\r\n"
NATS_PUBLISH = r"PUB bench %b\r\n%s\r\n"


def on_rust(library):
    """One of the servers in benches/peers/broadcast."""
    binary = BUILT / f"peer-{library}"

    def command(place):
        return [binary, "--port", place.data, "--threads", place.threads, "--cpus", place.cpu_list]

    return Kind(library, command, needs=(binary,))


def ntex():
    """Its own program takes one processor; broadcasting to another worker's connections it leaves to its users."""
    binary = BUILT / "peer-ntex"

    def command(place):
        return [binary, "--port", place.data, "--cpu", place.cpus[0]]

    return Kind("ntex", command, threads_max=1, needs=(binary,))


def npm_ws():
    """Two threads are two processes of node:cluster."""
    script = PEERS / "ws_server.js"

    def command(place):
        flags = ["--port", place.data, "--threads", place.threads, "--cpus", place.cpu_list]
        return ["taskset", "--cpu-list", place.cpu_list, "node", script, *flags]

    environment = {"NODE_PATH": str(NODE_MODULES)}
    return Kind("ws", command, environment=environment, needs=(NODE_MODULES / "ws",))


def socketify():
    """uWebSockets by its wheel for Python: its topics are those of one thread."""
    script = PEERS / "socketify_server.py"

    def command(place):
        return [PYTHON, script, "--port", place.data, "--cpu", place.cpus[0]]

    return Kind("uWebSockets", command, threads_max=1, needs=(PYTHON,))


def nchan():
    """Debian's nginx with its module: two threads are two workers."""

    def config(place):
        masks = {cpu: format(1 << cpu, "b") for cpu in place.cpus}
        return NCHAN_CONFIG.format(
            module=NCHAN_MODULE,
            user=getpass.getuser(),
            threads=place.threads,
            affinity=" ".join(masks[place.cpus[thread]] for thread in range(place.threads)),
            folder=place.folder,
            port=place.data,
            reuseport=" reuseport" if place.threads > 1 else "",
        )

    def command(place):
        return [NGINX, "-e", "stderr", "-p", place.folder, "-c", place.folder / "config"]

    return Kind("nchan", command, "/sub", "/pub", config=config, needs=(NGINX, NCHAN_MODULE))


def nats():
    """Debian's nats-server over WebSocket: its messages are those of its own protocol, in binary frames."""

    def config(place):
        return NATS_CONFIG.format(client_port=place.admin, port=place.data)

    def command(place):
        limit = ["env", f"GOMAXPROCS={place.threads}", "taskset", "--cpu-list", place.cpu_list]
        return [*limit, NATS, "-c", place.folder / "config"]

    return Kind(
        "nats",
        command,
        *("/", "/"),
        loadgen=("--send-binary", NATS_CONNECT, "--send-binary", NATS_SUBSCRIBE, "--ready", "PONG"),
        publishing=("--publish-send-binary", NATS_CONNECT, "--binary", "--template", NATS_PUBLISH),
        config=config,
        needs=(NATS,),
    )


# In the order of tables.
PEER_KINDS = {
    kind.name: kind
    for kind in (
        socketify(),
        nchan(),
        ntex(),
        on_rust("actix"),
        on_rust("fastwebsockets"),
        on_rust("axum"),
        on_rust("tokio-tungstenite"),
        npm_ws(),
        nats(),
    )
}
