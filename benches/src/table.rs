//! A table of text with aligned columns.
//!
//! Knows: cells. Must not know: what is in them.

use std::fmt;

/// A title, a head and rows; the first column is aligned to the left, the others to the right.
#[derive(Debug)]
pub struct Table {
    title: String,
    /// The head first.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(title: impl Into<String>, head: [&str; N]) -> Self {
        Self::with_head(title, head.map(str::to_owned).to_vec())
    }

    /// A table without rows, and with as many columns as it turns out to have.
    pub fn with_head(title: impl Into<String>, head: Vec<String>) -> Self {
        Self { title: title.into(), rows: vec![head] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        // A column that is empty but for its head is left out.
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                if cells.clone().skip(1).all(String::is_empty) {
                    return 0;
                }
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        writeln!(f, "{}", self.title)?;
        for row in &self.rows {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match (column, width) {
                    (_, 0) => {}
                    (0, _) => write!(f, "  {cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_vanish() {
        let mut table = Table::new("t", ["", "ns", "GB/s", "x"]);
        table.row(["a", "1.0", "", "1"].map(str::to_owned));
        table.row(["bcd", "10.0", "", "–"].map(str::to_owned));
        assert_eq!(table.to_string(), "t\n         ns  x\n  a     1.0  1\n  bcd  10.0  –\n");
    }
}
