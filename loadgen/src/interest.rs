//! Which streams a connection gets.
//!
//! Knows: numbers of streams. Must not know: connections, what has arrived.

/// Which streams the connections of a group get.
#[derive(Debug)]
pub(crate) struct Interest {
    columns: Columns,
    /// By column: the stream.
    streams: Vec<u16>,
}

/// Where a stream is in a connection's row.
#[derive(Debug)]
enum Columns {
    /// By stream: the column, or [`NO_COLUMN`]. One look, and 2 B for each stream of the run.
    ByStream(Vec<u16>),
    /// Found among the streams, which are few and sorted: where each connection has an interest of
    /// its own, tables of all streams would be the load generator's memory.
    Sorted,
}

impl Interest {
    /// The streams for which `wants` says so.
    pub(crate) fn new(streams: usize, wants: impl Fn(usize) -> bool) -> Self {
        let (mut column_of, mut wanted) = (vec![NO_COLUMN; streams], Vec::new());
        for stream in (0..streams).filter(|&stream| wants(stream)) {
            column_of[stream] = wanted.len() as u16;
            wanted.push(stream as u16);
        }
        Self { columns: Columns::ByStream(column_of), streams: wanted }
    }

    /// These streams, in any order.
    pub(crate) fn few(mut streams: Vec<u16>) -> Self {
        streams.sort_unstable();
        Self { columns: Columns::Sorted, streams }
    }

    /// In the order of their columns.
    pub(crate) fn streams(&self) -> &[u16] {
        &self.streams
    }

    /// Where the stream is in a row; `None` if it is not wanted.
    #[inline]
    pub(crate) fn column(&self, stream: u16) -> Option<usize> {
        match &self.columns {
            Columns::ByStream(column_of) => {
                let column = *column_of.get(usize::from(stream))?;
                (column != NO_COLUMN).then_some(usize::from(column))
            }
            Columns::Sorted => self.streams.binary_search(&stream).ok(),
        }
    }
}

/// Not among those wanted.
const NO_COLUMN: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_find_the_same_columns() {
        let wanted = [3, 5, 900];
        let (few, table) = (
            Interest::few(vec![900, 3, 5]),
            Interest::new(1000, |stream| wanted.contains(&(stream as u16))),
        );
        assert_eq!(few.streams(), table.streams());
        for stream in 0..1100 {
            assert_eq!(few.column(stream), table.column(stream), "{stream}");
        }
        assert_eq!(few.column(900), Some(2));
    }
}
