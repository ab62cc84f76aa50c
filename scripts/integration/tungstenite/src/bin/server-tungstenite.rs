//! A server on tokio-tungstenite: whatever anybody sends, everybody gets. Prints its port.
//!
//! Knows: that library. Must not know: what the messages are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

type Everybody = Rc<RefCell<BTreeMap<u64, UnboundedSender<Message>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let everybody = Everybody::default();
    let local = tokio::task::LocalSet::new();
    local.run_until(accept(listener, everybody)).await
}

async fn accept(listener: TcpListener, everybody: Everybody) -> Result<(), Box<dyn Error>> {
    for number in 0.. {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let everybody = Rc::clone(&everybody);
        tokio::task::spawn_local(async move {
            let (sender, queue) = unbounded_channel();
            // A connection that ends, however it does, is no business of the others.
            let _ = serve(stream, number, sender, queue, &everybody).await;
            everybody.borrow_mut().remove(&number);
        });
    }
    Ok(())
}

async fn serve(
    stream: TcpStream,
    number: u64,
    sender: UnboundedSender<Message>,
    mut queue: UnboundedReceiver<Message>,
    everybody: &Everybody,
) -> Result<(), Box<dyn Error>> {
    let (mut sink, mut source) = accept_async(stream).await?.split();
    everybody.borrow_mut().insert(number, sender);
    loop {
        tokio::select! {
            Some(message) = queue.recv() => {
                sink.feed(message).await?;
                while let Ok(message) = queue.try_recv() {
                    sink.feed(message).await?;
                }
                sink.flush().await?;
            }
            message = source.next() => match message.transpose()? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => {
                    everybody.borrow().values().for_each(|other| {
                        let _ = other.send(message.clone());
                    });
                }
                Some(_) => sink.flush().await?,
                None => return Ok(()),
            },
        }
    }
}
