//! What the run ran on, for whoever reads the report later.
//!
//! Knows: /proc and uname. Must not know: the run.

use schemars::JsonSchema;
use serde::Serialize;

/// Machine and program.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Machine {
    /// Release and version of the kernel.
    pub(crate) kernel: String,
    /// Model of the first processor.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cpus: usize,
    /// This program's version.
    pub(crate) version: &'static str,
    /// How it was built.
    pub(crate) build: &'static str,
    /// Its command line.
    pub(crate) command: Vec<String>,
    /// When the report was made, seconds since 1970.
    pub(crate) unix_s: u64,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let system = rustix::system::uname();
        let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = model.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
        Self {
            kernel: format!("{} {}", text(system.release()), text(system.machine())),
            cpu: cpu.to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            command: std::env::args().collect(),
            unix_s: crate::clock::unix_seconds(),
        }
    }
}
