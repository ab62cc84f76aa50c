// A server on npm's ws: whatever anybody sends, everybody gets. Prints its port. Knows: ws. Must not
// know: what the messages are.
//
// Arguments are words: `deflate`; `fragments` (each message in three); `string` and `base64` (wrapped in
// JSON so); `pings` (now and then, and what comes for who has not answered waits); `token` (no upgrade without a
// header `X-Token: t-<number>` of its own and the subprotocol `bench`); `close` (everybody is closed
// with 4001 after 20 messages).
'use strict';

const WebSocket = require('ws');

const words = new Set(process.argv.slice(2));
const tokens = new Set();
const server = new WebSocket.WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  perMessageDeflate: words.has('deflate') && { threshold: 0 },
  verifyClient: ({ req }) => {
    if (!words.has('token')) return true;
    const token = req.headers['x-token'] ?? '';
    const fresh = /^t-\d+$/.test(token) && !tokens.has(token);
    tokens.add(token);
    return fresh && /^other, ?bench$/.test(req.headers['sec-websocket-protocol']);
  },
  handleProtocols: (offered) => offered.has('bench') && 'bench',
});

const wrap = (data) => {
  if (words.has('string')) return JSON.stringify({ event: 'tick', data: data.toString() });
  if (words.has('base64')) return JSON.stringify({ data: data.toString('base64') });
  return data;
};

const send = (socket, data, binary) => {
  if (!words.has('fragments')) return socket.send(data, { binary });
  const third = Math.ceil(data.length / 3);
  for (const part of [0, 1, 2]) {
    const piece = data.subarray(part * third, (part + 1) * third);
    socket.send(piece, { binary, fin: part === 2 });
    // Control frames may stand between fragments.
    if (part === 0 && messages % 10 === 0) socket.ping('between');
  }
};

const deliver = (socket, data, binary) => {
  if (words.has('pings') && messages % 20 === 0 && !socket.held) {
    socket.held = [];
    socket.ping(`${messages}`);
    socket.awaited = `${messages}`;
  }
  if (socket.held) socket.held.push([data, binary]);
  else send(socket, data, binary);
};

let messages = 0;
server.on('connection', (socket) => {
  socket.on('pong', (payload) => {
    if (payload.toString() !== socket.awaited) return;
    const held = socket.held;
    socket.held = socket.awaited = null;
    for (const [data, binary] of held) send(socket, data, binary);
  });
  socket.on('error', () => {});
  socket.on('message', (data, binary) => {
    const wrapped = wrap(data);
    messages += 1;
    for (const other of server.clients) {
      if (other.readyState !== WebSocket.OPEN) continue;
      deliver(other, wrapped, binary);
      if (words.has('close') && messages === 20 && other !== socket) other.close(4001, 'enough');
    }
  });
});
server.on('listening', () => process.stdout.write(`${server.address().port}\n`));
