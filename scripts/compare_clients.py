#!/usr/bin/env python3
"""What clients need to receive a message of 128 B: the load generator, a bare multishot receive that throws
bytes away, picows (Python) and ws (Node). They take turns at one server that does nothing but write.

    cargo build --release -p uringcast-loadgen --bins --examples
    cargo build --release -p uringcast-benches --bin bare_receive
    scripts/test prepare                          # picows and ws, below the target directory
    scripts/compare_clients.py

The server has one processor and the client another. A round is one turn of each client; a figure is the median
over the rounds, a ratio is of two turns of one round. Two loads: `single`, where every receive brings one
message, and `coalesced`, where it brings as many as the chunk holds. The load generator looks at every message
(number, order, both histograms), the others at none.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PEERS = ROOT / "benches/peers/clients"
FRAME_BYTES = 132
# Chunk, bytes, and chunks per second to each connection: what the slowest client can take.
LOADS = {"single": (FRAME_BYTES, 100), "few": (8 * FRAME_BYTES, 50), "coalesced": (64 * 1024, 4)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(cpu, command, codes=(0,), **environment):
    """Runs the command there, which ends with one of the codes; its standard output."""
    command = ["taskset", "-c", str(cpu), *map(str, command)]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if ended.returncode not in codes:
        sys.exit(f"{command}: {ended.stderr.strip()}")
    return ended.stdout


def loadgen(port, rate, options):
    # The rate is that at which it thinks it publishes: it takes its samples by it. The server writes its own.
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        url = f"ws://127.0.0.1:{port}"
        command = [options.bin_dir / "loadgen", "fanout", "--url", f"{url}/raw/x", "--publish-url", f"{url}/publish/x", "--rate", rate]
        command += ["--subscribers", options.connections, "--warmup", f"{options.warmup}s", "--duration", f"{options.duration}s"]
        # The server goes on writing until it is left: waiting for an end is of no use.
        command += ["--grace", "0s", "--cpus", options.client_cpu, "--quiet", "--json", out.name, *options.loadgen]
        # 1: the server never answers a close.
        pinned(options.client_cpu, command, codes=(0, 1))
        report = json.load(open(out.name))
    receiving = [thread for thread in report["threads"] if not thread["publishes"]]
    if report["faults"]["damaged"] or report["faults"]["duplicated"] or report["faults"]["reordered"]:
        sys.exit(f"loadgen found faults: {report['faults']}")
    return {
        "messages": report["deliveries"]["window_messages"],
        "cpu_ns": sum(thread["cpu_ns"] for thread in receiving),
        "wall_ns": receiving[0]["wall_ns"],
    }


def bare(port, _, options):
    command = [options.bin_dir / "bare_receive", "--port", port, "--connections", options.connections, "--message-bytes", FRAME_BYTES]
    command += ["--warmup", options.warmup, "--duration", options.duration]
    return json.loads(pinned(options.client_cpu, command))


def picows(port, _, options):
    command = [options.python, PEERS / "picows_client.py", port, options.connections, options.warmup, options.duration]
    return json.loads(pinned(options.client_cpu, command))


def ws(port, _, options):
    command = ["node", PEERS / "ws_client.js", port, options.connections, options.warmup, options.duration]
    return json.loads(pinned(options.client_cpu, command, NODE_PATH=str(options.node_modules)))


CLIENTS = {"loadgen": loadgen, "bare": bare, "picows": picows, "ws": ws}


def turn(client, load, options):
    """One turn of one client: nanoseconds of its processor time per message, messages per second, its share of the processor."""
    chunk_bytes, rounds_per_s = LOADS[load]
    rounds_per_s = options.rounds_per_s or rounds_per_s
    port = free_port()
    command = ["taskset", "-c", str(options.server_cpu), options.bin_dir / "examples/blaster", port, options.connections, chunk_bytes, rounds_per_s]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        # It counts connections: no probing by connecting.
        while time.monotonic() < deadline and f":{port:04X} " not in pathlib.Path("/proc/net/tcp").read_text():
            time.sleep(0.05)
        rate = 0.9 * min(rounds_per_s, 1000) * (chunk_bytes // FRAME_BYTES)
        got = CLIENTS[client](port, rate, options)
        return got["cpu_ns"] / got["messages"], got["messages"] / got["wall_ns"] * 1e9, got["cpu_ns"] / got["wall_ns"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def spread(values):
    values = sorted(values)
    return f"{statistics.median(values):.2f}, {values[0]:.2f} to {values[-1]:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="loadgen,bare,picows,ws", type=lambda text: text.split(","))
    parser.add_argument("--loads", default=",".join(LOADS), type=lambda text: text.split(","))
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rounds-per-s", type=int, help="chunks per second to each connection, instead of the load's own")
    parser.add_argument("--warmup", type=float, default=1)
    parser.add_argument("--duration", type=float, default=4)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--bin-dir", type=pathlib.Path, default=TARGET / "release")
    parser.add_argument("--python", type=pathlib.Path, default=TARGET / "venv/bin/python", help="an interpreter that has picows")
    parser.add_argument("--node-modules", type=pathlib.Path, default=TARGET / "node/node_modules", help="where ws is")
    parser.add_argument("--loadgen", type=str.split, default=[], help="further flags for loadgen")
    parser.add_argument("--json", help="write every turn's figures here")
    options = parser.parse_args()
    turns = {}
    for load in options.loads:
        of = {client: [] for client in options.clients}
        for round_number in range(options.rounds):
            # In alternating order: what one leaves behind hits the others in turn.
            for client in options.clients if round_number % 2 else reversed(options.clients):
                of[client].append(turn(client, load, options))
        print(f"{load}: chunks of {LOADS[load][0] // FRAME_BYTES} messages to {options.connections} connections")
        for client, figures in of.items():
            ns, per_s, share = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"  {client:8} {ns:9.1f} ns of processor time per message at {per_s:9.0f} messages/s, {share * 100:3.0f} % of it")
        for other in options.clients[1:]:
            first = options.clients[0]
            print(f"  {first}/{other}: median {spread([a[0] / b[0] for a, b in zip(of[first], of[other], strict=True)])} in {options.rounds} pairs")
        turns[load] = of
    if options.json:
        text = json.dumps({"command": sys.argv, "kernel": os.uname().release, "turns": turns}, indent=1)
        pathlib.Path(options.json).write_text(text)


if __name__ == "__main__":
    main()
