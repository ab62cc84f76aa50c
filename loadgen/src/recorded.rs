//! Recorded market data: files to messages, merged by time, each with its topic.
//!
//! Knows: the two formats of lines. Must not know: who gets the messages, when they are sent.
//!
//! * `<ns since 1970> {"stream":"btcusdt@trade","data":{…}}`: recorded as received. The topic is
//!   `<folder>.<SYMBOL>.<stream>` with the name of the file's folder, `spot.BTCUSDT.trade`; the
//!   payload is the value of `data`, byte for byte. Lines without the wrapper (snapshots fetched
//!   over REST, which name no symbol) are no messages: they are counted, and kept by the folder and
//!   symbol of the file's messages.
//! * `{"topic":"a.b","data":…,"ts":…}`: `ts` in µs since 1970; without it the line belongs to the
//!   time of the line before.
//!
//! Either may be compressed with gzip.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use uringcast_protocol::topic_name::validate_name;

/// Messages of all files in the order of their times; equal times in the order of the files.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Names of the topics, in the order of their first message.
    pub(crate) topics: Vec<String>,
    pub(crate) messages: Vec<Message>,
    payloads: Vec<u8>,
    /// Lines that hold no message.
    pub(crate) skipped: u64,
    /// Of these, JSON without a wrapper: `<folder>.<SYMBOL>` of the file, and the text.
    pub(crate) unwrapped: Vec<(String, String)>,
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    /// When it was recorded, ns.
    pub(crate) at_ns: u64,
    /// Its topic's index.
    pub(crate) stream: u16,
    /// Its place among its topic's messages, from 0.
    pub(crate) number: u32,
    /// Where the payload is.
    start: usize,
    bytes: u32,
}

/// Why a file can't be replayed.
#[derive(Debug, Error)]
pub(crate) enum RecordedError {
    /// No line of any file was a message.
    #[error("no message in these files")]
    Empty,
    /// A line that is neither of the two formats.
    #[error("line {line}: {what}")]
    Line { line: u64, what: String },
    /// Reading or unpacking.
    #[error("line {line}: {error}")]
    Read { line: u64, error: std::io::Error },
    /// More than a stream's number can tell apart.
    #[error("more than {TOPICS_MAX} topics")]
    Topics,
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    ts: Option<u64>,
}

impl Recording {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that can't be read, and why.
    pub(crate) fn load(files: &[PathBuf]) -> Result<Self, (PathBuf, RecordedError)> {
        let mut recording = Self::default();
        let mut topics = HashMap::new();
        for path in files {
            recording.load_file(path, &mut topics).map_err(|error| (path.clone(), error))?;
        }
        if recording.messages.is_empty() {
            return Err((files.first().cloned().unwrap_or_default(), RecordedError::Empty));
        }
        recording.messages.sort_by_key(|message| message.at_ns);
        let mut numbers = vec![0; recording.topics.len()];
        for message in &mut recording.messages {
            message.number = numbers[usize::from(message.stream)];
            numbers[usize::from(message.stream)] += 1;
        }
        Ok(recording)
    }

    /// A message's payload.
    #[inline]
    pub(crate) fn payload(&self, message: &Message) -> &[u8] {
        &self.payloads[message.start..message.start + message.bytes as usize]
    }

    /// From the first message to the last, ns.
    pub(crate) fn span_ns(&self) -> u64 {
        let at = |message: Option<&Message>| message.map_or(0, |message| message.at_ns);
        at(self.messages.last()) - at(self.messages.first())
    }

    fn load_file(
        &mut self,
        path: &Path,
        topics: &mut HashMap<String, u16>,
    ) -> Result<(), RecordedError> {
        let mut line = 0;
        let mut text = String::new();
        let mut last_ns = 0;
        let (mut prefix, unwrapped_first) = (String::new(), self.unwrapped.len());
        let read = |line| move |error| RecordedError::Read { line, error };
        let mut reader = open(path).map_err(read(0))?;
        let folder = path
            .canonicalize()
            .ok()
            .and_then(|path| Some(path.parent()?.file_name()?.to_str()?.to_owned()))
            .unwrap_or_default();
        loop {
            text.clear();
            line += 1;
            let mut limited = reader.by_ref().take(LINE_BYTES_MAX);
            if limited.read_line(&mut text).map_err(read(line))? == 0 {
                for (of, _) in &mut self.unwrapped[unwrapped_first..] {
                    of.clone_from(&prefix);
                }
                return Ok(());
            }
            if text.len() as u64 == LINE_BYTES_MAX {
                let what = format!("longer than {LINE_BYTES_MAX} bytes");
                return Err(RecordedError::Line { line, what });
            }
            let wrong = |what: String| RecordedError::Line { line, what };
            match take_apart(text.trim_end(), &folder, last_ns).map_err(wrong)? {
                Line::Empty => self.skipped += 1,
                Line::Unwrapped(json) => {
                    self.skipped += 1;
                    if self.unwrapped.len() < UNWRAPPED_MAX {
                        self.unwrapped.push((String::new(), json.to_owned()));
                    }
                }
                Line::Message(at_ns, topic, payload) => {
                    last_ns = at_ns;
                    if prefix.is_empty() {
                        let end = topic.rfind('.').unwrap_or(0);
                        topic[..end].clone_into(&mut prefix);
                    }
                    self.add(at_ns, topic, payload.as_bytes(), topics)?;
                }
            }
        }
    }

    fn add(
        &mut self,
        at_ns: u64,
        topic: Cow<'_, str>,
        payload: &[u8],
        topics: &mut HashMap<String, u16>,
    ) -> Result<(), RecordedError> {
        let stream = match topics.get(topic.as_ref()) {
            Some(&stream) => stream,
            None => {
                if self.topics.len() >= TOPICS_MAX {
                    return Err(RecordedError::Topics);
                }
                let stream = self.topics.len() as u16;
                self.topics.push(topic.clone().into_owned());
                topics.insert(topic.into_owned(), stream);
                stream
            }
        };
        let (start, bytes) = (self.payloads.len(), payload.len() as u32);
        self.payloads.extend_from_slice(payload);
        self.messages.push(Message { at_ns, stream, number: 0, start, bytes });
        Ok(())
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn std::io::BufRead>> {
    let mut file = BufReader::new(File::open(path)?);
    if file.fill_buf()?.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(BufReader::with_capacity(1 << 17, MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}

/// A line taken apart.
enum Line<'a> {
    Empty,
    /// JSON that names no topic.
    Unwrapped(&'a str),
    /// Time, topic and payload.
    Message(u64, Cow<'a, str>, &'a str),
}

fn take_apart<'a>(line: &'a str, folder: &str, last_ns: u64) -> Result<Line<'a>, String> {
    if line.is_empty() {
        return Ok(Line::Empty);
    }
    if line.starts_with('{') {
        let plain: Plain<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        validate_name(&plain.topic).map_err(|error| format!("topic: {error}"))?;
        let at_ns = plain.ts.map_or(last_ns, |ts_us| ts_us.saturating_mul(1000));
        return Ok(Line::Message(at_ns, plain.topic, plain.data.get()));
    }
    let (time, json) = line.split_once(' ').ok_or("should be `<ns> <json>` or `{\"topic\",…}`")?;
    let at_ns = time.parse().map_err(|_| format!("`{time}` should be nanoseconds"))?;
    let Ok(wrapped) = serde_json::from_str::<Wrapped<'_>>(json) else {
        // No wrapper, but it must be JSON at least.
        serde_json::from_str::<&RawValue>(json).map_err(|error| error.to_string())?;
        return Ok(Line::Unwrapped(json));
    };
    let mut parts = wrapped.stream.split('@');
    let (symbol, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let topic = format!("{folder}.{}.{kind}", symbol.to_uppercase());
    validate_name(&topic).map_err(|error| format!("topic {topic}: {error}"))?;
    Ok(Line::Message(at_ns, Cow::Owned(topic), wrapped.data.get()))
}

const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];
/// The longest line, bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Lines without a wrapper that are kept.
const UNWRAPPED_MAX: usize = 1024;
/// Topics in a run.
pub(crate) const TOPICS_MAX: usize = 65_000;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn both_formats_are_read_and_merged_by_time_with_a_stable_tie_break() {
        let folder = std::env::temp_dir().join(format!("loadgen-{}", std::process::id()));
        let spot = folder.join("spot");
        std::fs::create_dir_all(&spot).expect("a folder");
        let packed = spot.join("a.gz");
        let file = File::create(&packed).expect("a file");
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(
            b"3000 {\"stream\":\"btcusdt@trade\",\"data\":{\"p\": \"1.0\"}}\n\
              4000 {\"lastUpdateId\":1}\n\
              5000 {\"stream\":\"btcusdt@depth@100ms\",\"data\":[1]}\n",
        )
        .and_then(|()| gzip.finish().map(drop))
        .expect("written");
        let plain = folder.join("b.ndjson");
        std::fs::write(
            &plain,
            "{\"topic\":\"x.y\",\"data\":7,\"ts\":3}\n\n{\"data\":\"z\",\"topic\":\"x.y\"}\n",
        )
        .expect("written");
        let recording = Recording::load(&[packed, plain]).expect("readable");
        assert_eq!(recording.topics, ["spot.BTCUSDT.trade", "spot.BTCUSDT.depth", "x.y"]);
        let told: Vec<_> = recording
            .messages
            .iter()
            .map(|message| {
                let payload = String::from_utf8_lossy(recording.payload(message));
                (message.at_ns, message.stream, message.number, payload.into_owned())
            })
            .collect();
        let expected = [
            (3000, 0, 0, "{\"p\": \"1.0\"}"),
            (3000, 2, 0, "7"),
            (3000, 2, 1, "\"z\""),
            (5000, 1, 0, "[1]"),
        ]
        .map(|(at, stream, number, payload)| (at, stream, number, payload.to_owned()));
        assert_eq!(told, expected);
        assert_eq!((recording.skipped, recording.span_ns()), (2, 2000));
        let unwrapped = ("spot.BTCUSDT".to_owned(), "{\"lastUpdateId\":1}".to_owned());
        assert_eq!(recording.unwrapped, [unwrapped]);
        let broken = folder.join("c");
        std::fs::write(&broken, "1 {\"stream\":\"a@b\",\"data\":1}\nnonsense\n").expect("written");
        let (_, error) = Recording::load(&[broken]).expect_err("refused");
        assert!(error.to_string().starts_with("line 2: should be"), "{error}");
        std::fs::remove_dir_all(folder).expect("our own folder");
    }
}
