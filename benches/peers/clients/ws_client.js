// Counts what subscribers are sent, with npm's ws: no payload is looked at.
// Usage: ws_client.js PORT CONNECTIONS WARMUP_S DURATION_S, then one line of JSON. Knows: ws.
'use strict';

const WebSocket = require('ws');

const [port, connections, warmupS, durationS] = process.argv.slice(2).map(Number);
const options = { perMessageDeflate: false, skipUTF8Validation: true };
let messages = 0;

const open = (path) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, options);
  socket.once('open', () => resolve(socket));
  socket.once('error', reject);
  socket.on('message', () => { messages += 1; });
});
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const reading = () => {
  const { user, system } = process.cpuUsage();
  return { messages, cpu_ns: (user + system) * 1000, wall_ns: Number(process.hrtime.bigint()) };
};

(async () => {
  for (let number = 0; number < connections; number += 1) await open('/raw/x');
  // The server begins with the first publication.
  (await open('/publish/x')).send('x');
  await sleep(warmupS);
  const begun = reading();
  await sleep(durationS);
  const ended = reading();
  console.log(JSON.stringify(
    Object.fromEntries(Object.keys(begun).map((name) => [name, ended[name] - begun[name]]))));
  process.exit(0);
})();
