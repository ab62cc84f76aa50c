//! The bodies of the fuzz targets: each takes any bytes, and panics if something does not hold.
//!
//! Knows: what must hold, and peers to compare with. Must not know: how inputs are made or kept.
//! `cargo test` runs every body over the committed corpus; how to fuzz is in `README.md`.

#![forbid(unsafe_code)]

pub mod commands;
pub mod config;
pub mod deflate;
pub mod frames;
pub mod head;
pub mod patterns;
pub mod publish_lines;
pub mod session;
mod tape;

#[path = "../../../protocol/tests/plain/mod.rs"]
mod plain;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// A change of a target's input format, or an assertion that never held, shows here first.
    #[test]
    fn every_body_holds_on_the_committed_corpus() {
        let bodies: [(&str, fn(&[u8])); 8] = [
            ("commands", super::commands::check),
            ("config", super::config::check),
            ("deflate", super::deflate::check),
            ("frames", super::frames::check),
            ("head", super::head::check),
            ("patterns", super::patterns::check),
            ("publish_lines", super::publish_lines::check),
            ("session", super::session::check),
        ];
        for (name, check) in bodies {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let inputs = fs::read_dir(&folder).expect("each target has a corpus");
            let mut count = 0;
            for input in inputs {
                let path = input.expect("readable").path();
                check(&fs::read(&path).expect("readable"));
                count += 1;
            }
            assert!(count > 0, "{name}");
        }
    }
}
