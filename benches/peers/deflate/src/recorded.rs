//! Recorded market data: files to payloads with their topics.
//!
//! Knows: the format of lines. Must not know: what is done with them.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use crate::{groups::Message, made_up};

/// All messages of the files, or made-up ones of every kind if there are none; after them small
/// made-up ones, since exchanges' own are hardly ever below 100 bytes.
///
/// # Errors
/// The first file that can't be read.
pub(crate) fn load(files: &[PathBuf]) -> Result<Vec<Message>, (PathBuf, io::Error)> {
    let mut messages = Vec::new();
    for path in files {
        load_file(path, &mut messages).map_err(|error| (path.clone(), error))?;
    }
    if files.is_empty() {
        messages.extend(made_up::exchange());
    }
    messages.extend(made_up::small());
    Ok(messages)
}

fn load_file(path: &Path, messages: &mut Vec<Message>) -> io::Result<()> {
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let reader = BufReader::new(MultiGzDecoder::new(BufReader::new(File::open(path)?)));
    for line in reader.lines() {
        let line = line?;
        if let Some(message) = message(&line, folder.unwrap_or("md")) {
            messages.push(message);
        }
    }
    Ok(())
}

/// `<ns> {"stream":"btcusdt@trade","data":…}`; a line without the wrapper is a snapshot of the book.
fn message(line: &str, folder: &str) -> Option<Message> {
    let (_, json) = line.split_once(' ')?;
    let Some(rest) = json.strip_prefix(r#"{"stream":""#) else {
        let (kind, topic) = ("snapshot".to_owned(), format!("{folder}.book"));
        return Some(Message { kind, topic, payload: json.to_owned() });
    };
    let (stream, data) = rest.split_once(r#"","data":"#)?;
    let mut parts = stream.split('@');
    let (symbol, kind) = (parts.next()?.to_uppercase(), parts.next()?.to_owned());
    let topic = format!("{folder}.{symbol}.{kind}");
    Some(Message { kind, topic, payload: data.strip_suffix('}')?.to_owned() })
}
