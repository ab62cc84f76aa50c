//! A broadcast server on axum: two tasks a connection, the writing one flushes when nothing more waits for it.
//! Must not know how threads and queues are made.

use std::{collections::VecDeque, io::Result, sync::Arc};

use axum::{
    Error, Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::Uri,
    response::Response,
    routing::any,
    serve::ListenerExt,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use peer_broadcast::{PUBLISH, flags::Flags, hub::Hub, queue::Queue, threads};
use tokio::net::TcpListener;

/// Each connection's, for its whole life. The default of 128 KiB is for few connections that receive much.
const READ_BUFFER_BYTES: usize = 4096;

fn main() -> Result<()> {
    threads::run(&Flags::of_process(), serve)
}

async fn serve(listener: TcpListener, hub: Arc<Hub<Message>>) -> Result<()> {
    let routes = Router::new().route("/{*path}", any(upgrade)).with_state(hub);
    let listener = listener.tap_io(|stream| {
        // One that is gone already is found out when it is read.
        drop(stream.set_nodelay(true));
    });
    axum::serve(listener, routes).await
}

async fn upgrade(
    upgrade: WebSocketUpgrade,
    uri: Uri,
    State(hub): State<Arc<Hub<Message>>>,
) -> Response {
    let publishes = uri.path().starts_with(PUBLISH);
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .on_upgrade(move |socket| connection(socket, publishes, hub))
}

async fn connection(socket: WebSocket, publishes: bool, hub: Arc<Hub<Message>>) {
    let (sink, messages) = socket.split();
    if publishes {
        publish(messages, &hub).await;
    } else {
        let queue = hub.subscribe();
        tokio::spawn(write(sink, queue.clone()));
        read(messages).await;
        queue.close();
    }
}

/// Pings are answered by the library, while it reads.
async fn read(mut messages: SplitStream<WebSocket>) {
    while let Some(Ok(_)) = messages.next().await {}
}

async fn publish(mut messages: SplitStream<WebSocket>, hub: &Hub<Message>) {
    while let Some(Ok(message)) = messages.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            hub.publish(&message);
        }
    }
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    queue: Queue<Message>,
) -> std::result::Result<(), Error> {
    let mut batch = VecDeque::new();
    while queue.take(&mut batch).await {
        for message in batch.drain(..) {
            sink.feed(message).await?;
        }
        sink.flush().await?;
    }
    Ok(())
}
