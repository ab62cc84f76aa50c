//! Which connections still wait for the word by which a server says that they have subscribed.
//!
//! Knows: that word, connections by number. Must not know: what was sent to be told so, sockets.

/// One thread's connections.
#[derive(Debug)]
pub(crate) struct Ready {
    word: Vec<u8>,
    /// By connection.
    waits: Vec<bool>,
    waiting: u64,
}

impl Ready {
    /// So many connections, none of which waits yet.
    pub(crate) fn new(word: &str, connections: usize) -> Self {
        Self { word: word.as_bytes().to_vec(), waits: vec![false; connections], waiting: 0 }
    }

    /// The connection has asked.
    pub(crate) fn begin(&mut self, connection: u32) {
        self.set(connection, true);
    }

    /// The connection has been told something.
    pub(crate) fn hear(&mut self, connection: u32, message: &[u8]) {
        if self.is_waiting(connection) && memchr::memmem::find(message, &self.word).is_some() {
            self.set(connection, false);
        }
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self, connection: u32) {
        self.set(connection, false);
    }

    /// Whether it has not been answered.
    pub(crate) fn is_waiting(&self, connection: u32) -> bool {
        self.waits[connection as usize]
    }

    /// Connections that have not been answered.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    fn set(&mut self, connection: u32, waits: bool) {
        let before = std::mem::replace(&mut self.waits[connection as usize], waits);
        self.waiting = self.waiting + u64::from(waits) - u64::from(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_waits_from_asking_to_the_word_or_its_end() {
        let mut ready = Ready::new("PONG", 3);
        ready.hear(0, b"PONG");
        ready.begin(0);
        ready.begin(0);
        ready.begin(1);
        assert_eq!((ready.waiting(), ready.is_waiting(0), ready.is_waiting(2)), (2, true, false));
        ready.hear(0, b"INFO {}\r\nPON");
        ready.hear(2, b"PONG");
        assert_eq!(ready.waiting(), 2);
        ready.hear(0, b"INFO {}\r\nPONG\r\n");
        ready.hear(0, b"PONG");
        ready.end(1);
        ready.end(1);
        assert_eq!((ready.waiting(), ready.is_waiting(0)), (0, false));
    }
}
