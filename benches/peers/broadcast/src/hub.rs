//! Who is subscribed on one thread, and how a publication reaches those of the other threads. Must not
//! know what a message is.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::queue::Queue;

/// One for each thread. A message is cloned for each subscriber: by reference, if it is made so.
pub struct Hub<T> {
    /// Locked by its own thread only.
    subscribers: Mutex<Vec<Queue<T>>>,
    others: Vec<UnboundedSender<T>>,
}

/// What comes to a hub from the other threads.
pub type FromOthers<T> = UnboundedReceiver<T>;

impl<T: Clone + Send + 'static> Hub<T> {
    /// As many, which know each other.
    pub fn all(threads: usize) -> Vec<(Arc<Self>, FromOthers<T>)> {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
        let hub = |(own, from_others)| {
            let others = senders.iter().enumerate();
            let others = others.filter(|(at, _)| *at != own).map(|(_, sender)| sender.clone());
            let subscribers = Mutex::default();
            (Arc::new(Self { subscribers, others: others.collect() }), from_others)
        };
        receivers.into_iter().enumerate().map(hub).collect()
    }

    pub fn subscribe(&self) -> Queue<T> {
        let queue = Queue::new();
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(queue.clone());
        queue
    }

    /// To all, of every thread. The others' first: they begin while this one is at work.
    pub fn publish(&self, message: &T) {
        for other in &self.others {
            // A thread that has ended has no subscribers.
            drop(other.send(message.clone()));
        }
        self.deliver(message);
    }

    /// Hands out what the other threads publish, for as long as the server runs.
    pub async fn deliver_from(self: Arc<Self>, mut others: FromOthers<T>) {
        while let Some(message) = others.recv().await {
            self.deliver(&message);
        }
    }

    /// Whoever is closed is forgotten.
    fn deliver(&self, message: &T) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.push(message.clone()));
    }
}
