//! Who the model clients are, and what comes into their heads.
//!
//! Knows: the mix of clients, and the dice. Must not know: how their bytes travel.

use uringcast_protocol::deflate::Offer;

use crate::{
    publisher::Publisher,
    subscriber::{Resume, Subscriber, Wish},
    vandal::Vandal,
    wire::{Pace, Stage, Wire},
    world::World,
};

/// What a client is for.
#[derive(Debug)]
pub(crate) enum Role {
    Subscriber(Subscriber),
    Publisher(Publisher),
    Vandal(Vandal),
    /// It says half a head and no more.
    Mute,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) role: Role,
    /// Never stalls, never goes: it tells what was published.
    pub(crate) observer: bool,
}

const PATTERNS: [&str; 10] =
    [">", "e.>", "v.>", "e.*", "v.*", "*.0", "*.*.x", "none.x", "d.>", "d.*"];

impl World {
    /// A topic or pattern to ask for.
    fn some_pattern(&self) -> String {
        if self.chance(500) {
            return self.truth.names[self.below(self.truth.names.len())].clone();
        }
        PATTERNS[self.below(PATTERNS.len())].to_owned()
    }

    fn some_patterns(&self) -> Vec<String> {
        let count = 1 + self.below(4);
        let mut patterns: Vec<String> = (0..count).map(|_| self.some_pattern()).collect();
        if self.chance(100) {
            patterns.push("a..b".to_owned());
        }
        patterns
    }

    /// Where a subscriber wants to begin.
    fn some_wish(&self, who: usize, patterns: &[&str]) -> Wish {
        let snapshot = self.chance(300);
        match self.below(10) {
            0..4 => Wish { snapshot, ..Wish::default() },
            4 | 5 => {
                let back_us = self.net.borrow_mut().dice.scale(1, 20_000_000) as u64;
                let from_us = Some(self.now.utc_us.saturating_sub(back_us));
                Wish { snapshot, from_us, ..Wish::default() }
            }
            _ => {
                let shard = self.clients[who].wire.shard;
                let topics = (0..self.truth.names.len()).filter(|_| self.chance(900));
                let resume = topics
                    .filter(|&topic| patterns.contains(&&*self.truth.names[topic]))
                    .filter_map(|topic| self.some_position(shard, topic));
                Wish { snapshot, resume: resume.collect(), ..Wish::default() }
            }
        }
    }

    /// A position in a topic; mostly one that a client could have.
    fn some_position(&self, shard: usize, topic: usize) -> Option<Resume> {
        let epochs = &self.truth.epochs[topic];
        let any = self.chance(100);
        let epoch = if any { epochs.values().next() } else { epochs.values().last() };
        let epoch = if self.chance(50) { "1".to_owned() } else { epoch?.clone() };
        let name = self.truth.names[topic].clone();
        let now = self.shards[shard].topic_seq(&name);
        let back = self.net.borrow_mut().dice.scale(1, 40) as u64 - 1;
        let mut seq = now.saturating_sub(back);
        if self.chance(80) {
            seq += self.below(50) as u64;
        }
        let number = self.truth.number(topic, seq);
        Some(Resume { topic, name, epoch, seq, number })
    }

    /// permessage-deflate as a subscriber may offer it, or not at all.
    fn some_offer(&self) -> Option<Offer> {
        let bits = if self.chance(300) { Some(8 + self.below(8) as u8) } else { None };
        self.chance(500).then_some(Offer { server_max_window_bits: bits, ..Offer::default() })
    }

    pub(crate) fn add_observers(&mut self) {
        for shard in 0..self.plan.shards {
            let mut wire = Wire::new(&mut self.net.borrow_mut(), shard, 0, crate::net::ENDLESS);
            let role = Subscriber::json(&mut wire, &[">"], false, self.seqs(shard));
            let role = Role::Subscriber(role);
            self.clients.push(Client { wire, role, observer: true });
        }
    }

    /// A new client, whatever it be.
    pub(crate) fn add_client(&mut self) {
        let me = self.clients.len();
        let shard = self.below(self.plan.shards);
        let room = self.net.borrow_mut().dice.scale(200 + self.plan.pad_max / 100, 200_000);
        let publishes = self.chance(250);
        let listener = usize::from(publishes);
        let mut wire = Wire::new(&mut self.net.borrow_mut(), shard, listener, room);
        let seqs = self.seqs(shard);
        let role = if publishes {
            // Whoever publishes to one topic gives no numbers, which deltas must have.
            let topic = self.chance(600).then(|| self.below(self.plan.topics));
            let ack = self.chance(500);
            Role::Publisher(Publisher::new(&mut wire, &self.truth, me, topic, ack))
        } else if !self.plan.calm && self.chance(150) {
            let net = &mut self.net.borrow_mut();
            Role::Vandal(Vandal::new(net, &mut wire, self.settings.message_bytes_max as usize))
        } else if !self.plan.calm && self.chance(50) {
            wire.say_bytes(b"GET /ws HTTP/1.1\r\nHost: half");
            Role::Mute
        } else if self.chance(400) {
            wire.offer = self.some_offer();
            Role::Subscriber(Subscriber::raw(&mut wire, &self.some_pattern(), seqs))
        } else {
            let topics = if self.chance(700) { self.some_patterns() } else { Vec::new() };
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let hello = self.chance(200);
            wire.offer = self.some_offer();
            Role::Subscriber(Subscriber::json(&mut wire, &topics, hello, seqs))
        };
        if !self.plan.calm && self.chance(250) {
            wire.pace = Pace::Slow;
            wire.diligent = false;
        }
        if !self.plan.calm && self.chance(40) {
            wire.polite = false;
            wire.diligent = false;
        }
        let kind = match &role {
            Role::Subscriber(subscriber) => format!("{:?}", subscriber.patterns),
            Role::Publisher(publisher) => format!("{publisher:?}"),
            Role::Vandal(vandal) => vandal.name.to_owned(),
            Role::Mute => "mute".to_owned(),
        };
        // Who has little room can't take all that it is owed before a deadline.
        wire.diligent &= room > 20_000;
        let (pace, socket) = (wire.pace, wire.socket);
        self.net.borrow_mut().note(|| {
            format!("client {me} on shard {shard}, socket {socket}, {pace:?}, room {room}: {kind}")
        });
        self.clients.push(Client { wire, role, observer: false });
    }

    /// Something comes into a client's head.
    pub(crate) fn whim(&mut self, who: usize) {
        if self.clients[who].observer || self.clients[who].wire.is_over() {
            return;
        }
        if !self.plan.calm && self.chance(60) {
            return self.change_pace(who);
        }
        let vandal = matches!(self.clients[who].role, Role::Vandal(_));
        if !vandal && self.chance(if self.plan.calm { 5 } else { 30 }) {
            return self.go(who);
        }
        if self.clients[who].wire.stage != Stage::Open || !self.clients[who].wire.is_said() {
            return;
        }
        let seqs = self.seqs(self.clients[who].wire.shard);
        let patterns = self.some_patterns();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let choice = self.below(8);
        let wish = self.some_wish(who, &patterns);
        let topic = self.below(self.truth.names.len());
        let net = &mut *self.net.borrow_mut();
        let Client { wire, role, .. } = &mut self.clients[who];
        match role {
            Role::Publisher(publisher) => {
                publisher.publish(net, wire, &mut self.truth, self.plan.pad_max);
            }
            Role::Vandal(vandal) => {
                net.note(|| format!("client {who} strikes: {}", vandal.name));
                vandal.strike(wire);
            }
            Role::Subscriber(subscriber) if !subscriber.raw => match choice {
                0 | 1 => subscriber.subscribe_with(net, wire, &patterns, (wish, seqs)),
                2 | 3 => subscriber.unsubscribe(net, wire, &patterns, seqs),
                4 => subscriber.chat(net, wire),
                5 => wire.ping(net),
                _ => {
                    let pad = net.dice.scale(1, self.plan.pad_max);
                    let content = crate::oracle::Content::Json;
                    let id = self.truth.publish(topic, content, pad, who);
                    subscriber.publish(net, wire, &self.truth, id);
                }
            },
            Role::Subscriber(_) => wire.ping(net),
            Role::Mute => {}
        }
    }

    fn change_pace(&mut self, who: usize) {
        let pace = [Pace::Eager, Pace::Slow, Pace::Stalled][self.below(3)];
        let wire = &mut self.clients[who].wire;
        wire.pace = pace;
        wire.diligent &= pace == Pace::Eager;
        self.net.borrow_mut().note(|| format!("client {who} reads {pace:?}"));
    }

    /// A client goes, one way or another.
    pub(crate) fn go(&mut self, who: usize) {
        let way = self.below(if self.plan.calm { 1 } else { 5 });
        let net = &mut *self.net.borrow_mut();
        let wire = &mut self.clients[who].wire;
        net.note(|| format!("client {who} goes, way {way}"));
        if wire.stage != Stage::Open && way == 0 {
            return wire.shut();
        }
        match way {
            0 => wire.say_close(Some(1000)),
            1 => wire.say_close(None),
            2 => wire.shut(),
            3 => wire.leave(net, false),
            _ => wire.leave(net, true),
        }
    }
}
