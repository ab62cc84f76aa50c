// The replayed data set, over the browsers' WebSocket API, which npm's ws has as well.
// Knows: messages, their order and payloads, as tally.py does. Must not know: where it runs, what
// should have come.
'use strict';

const LAST = '"this was the last one"';
const HEAD = /^\{"topic":"([^"]+)","seq":(\d+),"ts":\d+,"data":/;

// `open(url)` makes a socket. Two promises: `opened` is the extensions of each connection once all
// topics are subscribed to, `ended` what has come when the last message of each topic has.
function subscriber(open, base, form, names) { // eslint-disable-line no-unused-vars
  const topics = new Map(names.map((name) => [name, { seq: 0, payloads: [], over: false }]));
  const faults = [];
  const fault = (text) => faults.length < 10 && faults.push(text);

  const payload = (name, text) => {
    const topic = topics.get(name);
    if (topic.over) fault(`${name}: a message after the last one`);
    else if (typeof text !== 'string') fault(`${name}: text has become ${typeof text}`);
    else if (text === LAST) topic.over = true;
    else topic.payloads.push(text + '\n');
  };
  const wrapped = (text) => {
    const head = HEAD.exec(text);
    if (!head || !topics.has(JSON.parse(text).topic)) {
      fault(`not a message of ours: ${text.slice(0, 200)}`);
      return;
    }
    const topic = topics.get(head[1]);
    topic.seq += 1;
    if (Number(head[2]) !== topic.seq) fault(`${head[1]}: seq ${head[2]}, not ${topic.seq}`);
    payload(head[1], text.slice(head[0].length, -1));
  };
  const subscribed = (text) => {
    const answer = JSON.parse(text);
    const granted = (answer.topics ?? []).filter((each) => each.kind === 'event');
    if (answer.op !== 'subscribed' || granted.length !== names.length) fault(text);
  };

  const listen = (url, mine, take) => {
    const socket = open(url);
    let waits = form === 'ws';
    const opened = new Promise((done) => {
      socket.onopen = () => {
        if (waits) socket.send(JSON.stringify({ op: 'subscribe', id: 1, topics: names }));
        else done(socket.extensions);
      };
      socket.onmessage = (event) => {
        if (waits) {
          waits = false;
          subscribed(event.data);
          done(socket.extensions);
        } else {
          take(event.data);
          if (mine.every((name) => topics.get(name).over)) socket.close(1000);
        }
      };
    });
    const ended = new Promise((done) => {
      socket.onclose = (event) => {
        if (event.code !== 1000) fault(`closed: ${event.code} ${event.reason}`);
        done();
      };
    });
    return { opened, ended };
  };

  const sockets = form === 'ws'
    ? [listen(`${base}/ws`, names, wrapped)]
    : names.map((name) => listen(`${base}/raw/${name}`, [name], (text) => payload(name, text)));

  const told = async () => {
    const counted = {};
    for (const [name, { payloads }] of topics) {
      const bytes = new TextEncoder().encode(payloads.join(''));
      const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
      const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
      counted[name] = { count: payloads.length, sha256 };
    }
    return { topics: counted, faults, compressed: null };
  };
  return {
    opened: Promise.all(sockets.map((each) => each.opened)),
    ended: Promise.all(sockets.map((each) => each.ended)).then(told),
  };
}

if (typeof module !== 'undefined') module.exports = subscriber;
