//! What waits for one connection: without a bound, and taken all at once. Must not know what a message is.
//!
//! A connection's task is woken once however many messages come before it runs, and a connection for
//! which nothing waits holds no memory for messages, which tokio's channels do. So the libraries stand
//! here with less than their users' usual queue costs them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// One end for those who push and the one who takes: clones are the same queue.
pub struct Queue<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    waiting: VecDeque<T>,
    /// Of the one who takes, while it has nothing to do.
    taker: Option<Waker>,
    open: bool,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State { waiting: VecDeque::new(), taker: None, open: true })))
    }

    /// Whether it is open still.
    pub fn push(&self, message: T) -> bool {
        let mut state = self.lock();
        if !state.open {
            return false;
        }
        state.waiting.push_back(message);
        let taker = state.taker.take();
        drop(state);
        if let Some(taker) = taker {
            taker.wake();
        }
        true
    }

    /// No more is pushed; what waits is taken still.
    pub fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        if let Some(taker) = state.taker.take() {
            taker.wake();
        }
    }

    /// All that waits, in exchange for `batch`, which is empty; false when it is closed and nothing is left.
    pub async fn take(&self, batch: &mut VecDeque<T>) -> bool {
        poll_fn(|context| self.poll_take(context, batch)).await
    }

    pub fn poll_take(&self, context: &mut Context<'_>, batch: &mut VecDeque<T>) -> Poll<bool> {
        let mut state = self.lock();
        if !state.waiting.is_empty() {
            std::mem::swap(&mut state.waiting, batch);
            return Poll::Ready(true);
        }
        if !state.open {
            return Poll::Ready(false);
        }
        state.taker = Some(context.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_waits_is_taken_at_once() {
        let queue = Queue::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut batch = VecDeque::new();
        assert!(queue.poll_take(&mut context, &mut batch).is_pending());
        assert!(queue.push(1) && queue.push(2));
        assert_eq!(queue.poll_take(&mut context, &mut batch), Poll::Ready(true));
        assert_eq!(batch, [1, 2]);
    }

    #[test]
    fn what_waits_outlives_the_close() {
        let queue = Queue::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut batch = VecDeque::new();
        assert!(queue.push(1));
        queue.close();
        assert!(!queue.push(2));
        assert_eq!(queue.poll_take(&mut context, &mut batch), Poll::Ready(true));
        batch.clear();
        assert_eq!(queue.poll_take(&mut context, &mut batch), Poll::Ready(false));
    }
}
