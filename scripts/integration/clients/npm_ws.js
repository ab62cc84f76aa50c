// The replayed data set, over npm's ws, with the arguments and the two lines of tally.py.
// Knows: ws. Must not know: what the messages should be.
'use strict';

const WebSocket = require('ws');
const subscriber = require('./subscriber.js');

const [base, form, deflate, ...topics] = process.argv.slice(2);
const open = (url) => {
  const socket = new WebSocket(url, [], { perMessageDeflate: deflate === 'on' });
  socket.on('error', (error) => {
    process.stderr.write(`${error}\n`);
    process.exit(1);
  });
  return socket;
};
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const { opened, ended } = subscriber(open, base, form, topics);
opened.then((extensions) => tell({ extensions }));
ended.then(tell);
