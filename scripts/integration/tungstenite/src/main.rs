//! The replayed data set, over tokio-tungstenite, with the arguments and the two lines that
//! `clients/tally.py` describes.
//!
//! Knows: that library, messages, their order and payloads. Must not know: what should have come.
//! It offers no compression: the library has none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

#[derive(Default)]
struct Topic {
    count: u64,
    seq: u64,
    is_over: bool,
    digest: Sha256,
}

#[derive(Default)]
struct Tally {
    topics: BTreeMap<String, Topic>,
    faults: Vec<String>,
    extensions: Vec<String>,
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    topic: String,
    seq: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: URL ws|raw off TOPIC…");
    let (base, form, deflate) = (next()?, next()?, next()?);
    if deflate != "off" {
        return Err("tokio-tungstenite has no compression".into());
    }
    let names: Vec<String> = arguments.collect();
    let tally = Tally {
        topics: names.iter().map(|name| (name.clone(), Topic::default())).collect(),
        ..Tally::default()
    };
    let tally = Rc::new(RefCell::new(tally));
    let connections: Vec<_> = match form.as_str() {
        "ws" => vec![(format!("{base}/ws"), names)],
        _ => names.into_iter().map(|name| (format!("{base}/raw/{name}"), vec![name])).collect(),
    };
    let count = connections.len();
    let listens = connections.into_iter().map(|(url, names)| {
        let tally = Rc::clone(&tally);
        async move { listen(&tally, &url, &names, count).await.map_err(|error| error.to_string()) }
    });
    for outcome in futures_util::future::join_all(listens).await {
        outcome?;
    }
    let tally = Rc::into_inner(tally).ok_or("all connections are over")?.into_inner();
    let topics: BTreeMap<_, _> = tally.topics.into_iter().map(told).collect();
    println!("{}", json!({"topics": topics, "faults": tally.faults, "compressed": null}));
    Ok(())
}

fn told((name, topic): (String, Topic)) -> (String, serde_json::Value) {
    let sha256: String = topic.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (name, json!({"count": topic.count, "sha256": sha256}))
}

/// One connection, until the last message of each of its topics. The last of `connections` to open
/// tells so.
async fn listen(
    tally: &RefCell<Tally>,
    url: &str,
    names: &[String],
    connections: usize,
) -> Result<(), Box<dyn Error>> {
    let is_json = url.ends_with("/ws");
    let (mut socket, answer) = connect_async(url).await?;
    if is_json {
        let subscribe = json!({"op": "subscribe", "id": 1, "topics": names});
        socket.send(Message::text(subscribe.to_string())).await?;
        let answer = socket.next().await.ok_or("no answer to the subscribe")??;
        tally.borrow_mut().check_subscribed(answer.to_text()?, names)?;
    }
    let extensions = answer.headers().get("sec-websocket-extensions");
    tally
        .borrow_mut()
        .opened(extensions.map_or("", |value| value.to_str().unwrap_or("?")), connections);
    while let Some(message) = socket.next().await {
        match (message?, names) {
            (Message::Text(text), [name, ..]) => {
                let mut tally = tally.borrow_mut();
                if is_json { tally.wrapped(&text) } else { tally.payload(name, &text) }
            }
            (Message::Ping(_) | Message::Pong(_), _) => {}
            (other, _) => return Err(format!("{url}: {other:?}").into()),
        }
        if names.iter().all(|name| tally.borrow().topics[name].is_over) {
            socket.close(None).await?;
            return Ok(());
        }
    }
    Err(format!("{url}: ended").into())
}

impl Tally {
    fn opened(&mut self, extensions: &str, connections: usize) {
        self.extensions.push(extensions.to_owned());
        if self.extensions.len() == connections {
            println!("{}", json!({"extensions": self.extensions}));
        }
    }

    fn check_subscribed(&self, text: &str, names: &[String]) -> Result<(), Box<dyn Error>> {
        let answer: serde_json::Value = serde_json::from_str(text)?;
        let topics = answer["topics"].as_array().ok_or_else(|| text.to_owned())?;
        let granted = topics.iter().filter(|topic| topic["kind"] == "event").count();
        if answer["op"] != "subscribed" || granted != names.len() {
            return Err(text.into());
        }
        Ok(())
    }

    /// A message of `/ws`.
    fn wrapped(&mut self, text: &str) {
        let Ok(message) = serde_json::from_str::<Wrapped<'_>>(text) else {
            return self.fault(format!("not a message of ours: {text}"));
        };
        let Some(topic) = self.topics.get_mut(&message.topic) else {
            return self.fault(format!("not subscribed to: {text}"));
        };
        topic.seq += 1;
        if message.seq != topic.seq {
            let fault = format!("{}: seq {}, not {}", message.topic, message.seq, topic.seq);
            self.fault(fault);
        }
        self.payload(&message.topic, message.data.get());
    }

    fn payload(&mut self, name: &str, text: &str) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        if topic.is_over {
            self.fault(format!("{name}: a message after the last one"));
        } else if text == LAST {
            topic.is_over = true;
        } else {
            topic.count += 1;
            topic.digest.update(text);
            topic.digest.update("\n");
        }
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(text);
        }
    }
}

const FAULTS_MAX: usize = 10;
const LAST: &str = "\"this was the last one\"";
