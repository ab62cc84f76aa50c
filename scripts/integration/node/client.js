// A conversation with npm's ws, driven line by line: what comes is printed as JSON lines, what is
// to be sent is read as JSON lines. Knows: ws. Must not know: what the answers should be.
'use strict';

const readline = require('node:readline');
const WebSocket = require('ws');

const [url, protocol] = process.argv.slice(2);
const socket = new WebSocket(url, protocol ? [protocol] : [], { perMessageDeflate: true });
const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');

socket.on('open', () =>
  tell({ event: 'open', protocol: socket.protocol, extensions: socket.extensions }));
socket.on('message', (data, binary) =>
  tell({ event: 'message', binary, data: data.toString(binary ? 'base64' : 'utf8') }));
socket.on('ping', (data) => tell({ event: 'ping', data: data.toString() }));
socket.on('pong', (data) => tell({ event: 'pong', data: data.toString() }));
socket.on('unexpected-response', (_, response) => {
  tell({ event: 'refused', status: response.statusCode });
  process.exit(0);
});
socket.on('error', (error) => tell({ event: 'error', message: error.message }));
socket.on('close', (code, reason) => {
  tell({ event: 'close', code, reason: reason.toString() });
  process.exit(0);
});

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const order = JSON.parse(line);
  if ('text' in order) socket.send(order.text);
  if ('base64' in order) socket.send(Buffer.from(order.base64, 'base64'));
  if ('ping' in order) socket.ping(order.ping);
  if ('close' in order) socket.close(order.close, order.reason);
});
