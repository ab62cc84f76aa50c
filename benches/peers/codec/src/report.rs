//! What was measured, as text and as JSON.
//!
//! Knows: tables and numbers. Must not know: how they came about.

use std::{fmt::Write as _, fs, io, path::Path};

use crate::{
    suite::{Measured, Summary},
    table::Table,
};

/// Prints as it comes, and keeps everything.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
    /// Elements of a JSON array.
    groups: Vec<String>,
}

impl Report {
    /// A group's table, if it was measured.
    pub(crate) fn measured(&mut self, measured: Option<Measured>) {
        let Some(measured) = measured else { return };
        self.print(&measured.table());
        let summary =
            |Summary { median, low, high }: &Summary| format!("[{low:.4},{median:.4},{high:.4}]");
        let cases: Vec<String> = measured
            .cases
            .iter()
            .map(|case| {
                let (ns, ratio) = (summary(&case.ns), summary(&case.ratio));
                format!("  {{\"crate\":\"{}\",\"ns\":{ns},\"ratio\":{ratio}}}", case.name)
            })
            .collect();
        let bytes =
            measured.item_bytes.map_or_else(|| "null".to_owned(), |bytes| format!("{bytes}"));
        let cases = cases.join(",\n");
        let group =
            format!("{{\"group\":\"{}\",\"bytes\":{bytes},\"cases\":[\n{cases}]}}", measured.name);
        self.groups.push(group);
    }

    /// The table of what is refused.
    pub(crate) fn conformance(&mut self, table: Table) {
        self.print(&table);
    }

    /// Writes `<out>.txt` and `<out>.json`; in the latter the tenth, the median, the ninetieth.
    pub(crate) fn write(&self, out: &Path) -> io::Result<()> {
        fs::write(out.with_extension("txt"), &self.text)?;
        fs::write(out.with_extension("json"), format!("[\n{}\n]\n", self.groups.join(",\n")))
    }

    fn print(&mut self, table: &Table) {
        println!("{table}");
        // A string takes all.
        let _ = writeln!(self.text, "{table}");
    }
}
