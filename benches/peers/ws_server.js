// A broadcast server on npm's ws: who asks for a path that begins with /pub publishes to all others. Knows:
// ws's public interface, node:cluster. Must not know: what the messages are.
//
//   node ws_server.js --port 9103 [--threads 1|2] [--cpus 0,1]
//
// A message is framed once by `WebSocket.Sender.frame` and written to each connection's own socket, the
// one that node's `upgrade` event gave us: `ws.send` frames it for each, in two pieces. What arrives in one
// read goes out in one write. Two threads are two processes of node:cluster with one listening socket;
// publications reach the other process through the first one, which is how its users do it.
'use strict';

const { execFileSync } = require('node:child_process');
const cluster = require('node:cluster');
const http = require('node:http');
const { parseArgs } = require('node:util');

const { Sender, WebSocketServer } = require('ws');

const BACKLOG = 4096;
const TEXT = 1;
const BINARY = 2;

const subscribers = new Set();
let waiting = [];

// Once for all that one read brought: ws emits its messages one after another before microtasks run.
const publish = (data, binary) => {
  if (waiting.length === 0) queueMicrotask(flush);
  const options = { fin: true, opcode: binary ? BINARY : TEXT, mask: false, readOnly: true, rsv1: false };
  waiting.push(...Sender.frame(data, options));
};

const flush = () => {
  const frames = Buffer.concat(waiting);
  waiting = [];
  if (cluster.isWorker) process.send(frames);
  deliver(frames);
};

// What a socket does not take yet waits in it, without a bound.
const deliver = (frames) => {
  for (const socket of subscribers) socket.write(frames);
};

const serve = (port) => {
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false });
  const server = http.createServer((_, response) => response.writeHead(426).end());
  server.on('upgrade', (request, socket, head) => {
    socket.setNoDelay(true);
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on('error', () => {});
      if (request.url.startsWith('/pub')) {
        client.on('message', publish);
      } else {
        subscribers.add(socket);
        client.on('close', () => subscribers.delete(socket));
      }
    });
  });
  server.listen({ host: '127.0.0.1', port, backlog: BACKLOG });
};

const usage = (wrong) => {
  process.stderr.write(`${wrong}\nusage: ws_server.js --port PORT [--threads 1|2] [--cpus CPU,…]\n`);
  process.exit(2);
};

const flags = () => {
  const string = { type: 'string' };
  try {
    const { values } = parseArgs({ options: { port: string, threads: { ...string, default: '1' }, cpus: string } });
    const port = Number(values.port);
    const threads = Number(values.threads);
    const cpus = (values.cpus ?? [...Array(threads).keys()].join(',')).split(',').map(Number);
    if (!(port > 0 && port < 65536)) usage('--port is missing, or no port');
    if (!(threads === 1 || threads === 2)) usage('--threads is 1 or 2');
    if (cpus.length !== threads || cpus.some(Number.isNaN)) usage('--cpus names one processor for each thread');
    return { port, threads, cpus };
  } catch (error) {
    return usage(error.message);
  }
};

// node has no call for it.
const pin = (cpu) => execFileSync('taskset', ['--all-tasks', '--cpu-list', '--pid', cpu, process.pid]);

const main = () => {
  const { port, threads, cpus } = flags();
  if (cluster.isWorker) {
    pin(process.env.PEER_CPU);
    process.on('message', (frames) => deliver(frames));
    serve(port);
  } else if (threads === 1) {
    pin(String(cpus[0]));
    serve(port);
  } else {
    // Workers accept by themselves instead of getting each connection from the first process.
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    // Buffers as they are, not as JSON.
    cluster.setupPrimary({ serialization: 'advanced' });
    const workers = cpus.map((cpu) => cluster.fork({ PEER_CPU: cpu }));
    for (const worker of workers) {
      worker.on('message', (frames) => {
        for (const other of workers) if (other !== worker) other.send(frames);
      });
      worker.on('exit', () => process.exit(1));
    }
    process.on('SIGTERM', () => process.exit(0));
  }
};

main();
