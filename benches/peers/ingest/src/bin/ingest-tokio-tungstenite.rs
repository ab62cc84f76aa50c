//! Takes messages in on tokio-tungstenite: one task a connection, `accept_hdr_async` and `next`, as its
//! examples do. A payload is kept as the `Bytes` that the library hands out.

#![forbid(unsafe_code)]

use std::{cell::RefCell, io::Result, rc::Rc};

use futures_util::StreamExt as _;
use peer_ingest::{Table, run};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Bytes,
        handshake::server::{Request, Response},
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Messages = Rc<RefCell<Table<Bytes>>>;

fn main() -> Result<()> {
    run(|listener| async move { LocalSet::new().run_until(serve(listener)).await })
}

async fn serve(listener: TcpListener) -> Result<()> {
    let messages = Messages::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(take(stream, Rc::clone(&messages)));
    }
}

async fn take(stream: TcpStream, messages: Messages) {
    let mut topic = String::new();
    let note_path = |request: &Request, response: Response| {
        topic = request.uri().path().to_owned();
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, note_path).await else { return };
    // Pings and closes are answered by the library while it reads.
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            messages.borrow_mut().take(&topic, message.into_data());
        }
    }
}
