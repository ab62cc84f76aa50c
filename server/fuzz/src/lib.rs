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
pub mod proxies;
pub mod publish_lines;
pub mod session;
mod tape;

#[path = "../../../protocol/tests/heard/mod.rs"]
mod heard;
#[path = "../../../protocol/tests/plain/mod.rs"]
mod plain;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// A change of a target's input format, or an assertion that never held, shows here first.
    fn holds_on_the_corpus(name: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let inputs: Vec<_> = fs::read_dir(&folder).expect("each target has a corpus").collect();
        assert!(!inputs.is_empty());
        for input in inputs {
            let path = input.expect("readable").path();
            println!("{}", path.display());
            check(&fs::read(&path).expect("readable"));
        }
    }

    macro_rules! corpora {
        ($($name:ident)*) => {
            $(#[test]
            fn $name() {
                holds_on_the_corpus(stringify!($name), crate::$name::check);
            })*
        };
    }

    corpora! { commands config deflate frames head patterns proxies publish_lines session }
}
