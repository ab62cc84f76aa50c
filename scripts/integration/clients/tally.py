"""What a client of the replayed data set has got: told to the test in two lines of JSON.

    CLIENT ws://HOST:PORT ws|raw on|off TOPIC…

The last two: whether compression is offered, and the topics. `ws` subscribes to all of them on one
connection to /ws, `raw` has a connection to /raw/TOPIC for each. The first line comes when every
topic is subscribed to, the second when the last message of each has come.

Knows: messages, their order and payloads. Must not know: sockets, what should have come.
"""

import asyncio
import hashlib
import json
import re
import sys

LAST = '"this was the last one"'
HEAD = re.compile(r'\{"topic":"([^"]+)","seq":(\d+),"ts":\d+,"data":')
FAULTS_MAX = 10


class Topic:
    def __init__(self):
        self.count, self.seq, self.is_over = 0, 0, False
        self.digest = hashlib.sha256()


class Tally:
    def __init__(self, topics):
        self.topics = {name: Topic() for name in topics}
        self.compressed, self.faults = None, []

    def wrapped(self, text):
        """A message of /ws. Its payload is taken as it stands in the text, byte for byte."""
        head = HEAD.match(text)
        if not head or json.loads(text)["topic"] not in self.topics:
            self.fault(f"not a message of ours: {text[:200]!r}")
            return
        name, seq = head[1], int(head[2])
        topic = self.topics[name]
        topic.seq += 1
        if seq != topic.seq:
            self.fault(f"{name}: seq {seq} in place of {topic.seq}")
        self.payload(name, text[head.end() : -1])

    def payload(self, name, text):
        topic = self.topics[name]
        if topic.is_over:
            self.fault(f"{name}: a message after the last one")
        elif not isinstance(text, str):
            self.fault(f"{name}: text has become {type(text)}")
        elif text == LAST:
            topic.is_over = True
        else:
            topic.count += 1
            topic.digest.update(text.encode() + b"\n")

    def fault(self, text):
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    def is_over(self, *names):
        """Of these topics, or of all."""
        return all(self.topics[name].is_over for name in names or self.topics)

    def subscribed(self, text):
        """The answer to a subscribe: everything granted, nothing published yet."""
        answer = json.loads(text)
        assert answer["op"] == "subscribed", answer
        assert [each["topic"] for each in answer["topics"]] == list(self.topics), answer
        assert all(each["kind"] == "event" for each in answer["topics"]), answer

    def subscribe(self):
        return json.dumps({"op": "subscribe", "id": 1, "topics": list(self.topics)})


def arguments():
    """Base URL, form, whether compression is offered, tally."""
    base, form, deflate, *topics = sys.argv[1:]
    return base, form, {"on": True, "off": False}[deflate], Tally(topics)


def tell_open(extensions):
    """The value of Sec-WebSocket-Extensions in each answer, or whatever the library shows of it."""
    print(json.dumps({"extensions": extensions}), flush=True)


def tell_end(tally):
    topics = {
        name: {"count": topic.count, "sha256": topic.digest.hexdigest()}
        for name, topic in tally.topics.items()
    }
    end = {"topics": topics, "faults": tally.faults, "compressed": tally.compressed}
    print(json.dumps(end), flush=True)


def run(listen):
    """For clients on asyncio: `listen(tally, url, names, deflate, opened)` is one connection, which
    calls `opened` with its extensions once it is subscribed."""
    base, form, deflate, tally = arguments()
    extensions = []
    urls = {f"{base}/raw/{name}": [name] for name in tally.topics}
    if form == "ws":
        urls = {f"{base}/ws": list(tally.topics)}

    def opened(of_one):
        extensions.append(of_one)
        if len(extensions) == len(urls):
            tell_open(extensions)

    async def all_of_them():
        await asyncio.gather(
            *(listen(tally, url, names, deflate, opened) for url, names in urls.items())
        )

    asyncio.run(all_of_them())
    tell_end(tally)
